"""The authors' facial graph generator (ME-GraphAU, MACG), mapped onto our layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def topk_graph_conv(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map `GNN` (U, V, bnv) onto `TopKGraphConv`; V and U are one linear map of ours."""
    ours = {
        f"norm.{key.removeprefix('bnv.')}": value
        for key, value in author.items()
        if key.startswith("bnv.")
    }
    for entry in ("weight", "bias"):
        if f"V.{entry}" in author:
            ours[f"project.{entry}"] = torch.cat((author[f"V.{entry}"], author[f"U.{entry}"]))
    return ours
