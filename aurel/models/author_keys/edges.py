"""The authors' parameter names of ME-GraphAU and OpenGraphAU, mapped onto the layers of aurel.

Each function takes the entries of one of the authors' modules, with names relative to it, and
returns the state dict of our layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_GATED = {
    "U": "node",
    "V": "message",
    "A": "target",
    "B": "source",
    "E": "edge",
    "bnv": "node_norm",
    "bne": "edge_norm",
}


def token_projection(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map `LinearBlock` (fc, bn) onto `TokenProjection`."""
    names = {"fc": "linear", "bn": "norm"}
    return {
        f"{names[module]}.{entry}": value
        for (module, entry), value in ((key.split("."), value) for key, value in author.items())
    }


def au_specific_features(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map a list of `LinearBlock` (0.fc, 0.bn, 1.fc, ...) onto `AUSpecificFeatures`."""
    count = 1 + max(int(key.split(".")[0]) for key in author)
    blocks = [
        token_projection({k: author[f"{n}.{k}"] for k in _block_keys(author, n)})
        for n in range(count)
    ]
    stacked = {}
    for key, first in blocks[0].items():
        stacked[key] = first if first.dim() == 0 else torch.cat([block[key] for block in blocks])
    return stacked


def cosine_classifier(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameter `sc` onto `CosineClassifier`."""
    return {"prototypes": author["sc"]}


def multi_dimensional_edges(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map `GEM` (FAM, ARM, edge_proj, bn) onto `MultiDimensionalEdges`."""
    ours = {}
    for theirs, prefix in (("FAM", "face"), ("ARM", "pair")):
        for letter, role in (("q", "query"), ("k", "key"), ("v", "value")):
            for entry in ("weight", "bias"):
                ours[f"{prefix}_{role}.{entry}"] = author[f"{theirs}.linear_{letter}.{entry}"]
    for entry in ("weight", "bias"):
        ours[f"projection.{entry}"] = author[f"edge_proj.{entry}"]
    for entry in _NORM:
        ours[f"norm.{entry}"] = _square(author[f"bn.{entry}"])
    return ours


def gated_edge_gcn(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the gated GCN onto `GatedEdgeGCN`.

    ME-GraphAU numbers its modules from 1 (U1, bnv1, U2, ...); OpenGraphAU has a list
    (graph_layers.0.U, graph_layers.0.bnv, ...).
    """
    ours = {}
    for key, value in author.items():
        module, entry = key.rsplit(".", 1)
        if module.startswith("graph_layers."):
            _, index, name = module.split(".")
        else:
            name, index = module[:-1], str(int(module[-1]) - 1)
        ours[f"layers.{index}.{_GATED[name]}.{entry}"] = _square(value) if name == "bne" else value
    return ours


def _block_keys(author: Mapping[str, Tensor], index: int) -> list[str]:
    prefix = f"{index}."
    return [key.removeprefix(prefix) for key in author if key.startswith(prefix)]


def _square(value: Tensor) -> Tensor:
    """Return an entry of a normalisation over N*N pairs as (N, N)."""
    if value.dim() == 0:
        return value
    nodes = round(value.numel() ** 0.5)
    return value.view(nodes, nodes)
