"""Parameter names of the layers that ME-GraphAU shares with the models that follow it.

Each function takes the entries of one of the authors' modules, with names relative to it, and
returns the state dict of the layer of aurel.
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


def topk_graph_conv(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map `GNN` (U, V, bnv) onto `TopKGraphConv`, which holds V and U in one linear map."""
    state = {
        f"norm.{key.removeprefix('bnv.')}": value
        for key, value in author.items()
        if key.startswith("bnv.")
    }
    for entry in ("weight", "bias"):
        if f"V.{entry}" in author:
            state[f"project.{entry}"] = torch.cat((author[f"V.{entry}"], author[f"U.{entry}"]))
    return state


def multi_dimensional_edges(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map `GEM` (FAM, ARM, edge_proj, bn) onto `MultiDimensionalEdges`."""
    state = {}
    for module, prefix in (("FAM", "face"), ("ARM", "pair")):
        for letter, role in (("q", "query"), ("k", "key"), ("v", "value")):
            for entry in ("weight", "bias"):
                state[f"{prefix}_{role}.{entry}"] = author[f"{module}.linear_{letter}.{entry}"]
    for entry in ("weight", "bias"):
        state[f"projection.{entry}"] = author[f"edge_proj.{entry}"]
    for entry in _NORM:
        state[f"norm.{entry}"] = _square(author[f"bn.{entry}"])
    return state


def gated_edge_gcn(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the gated GCN onto `GatedEdgeGCN`.

    ME-GraphAU numbers its modules from 1 (U1, bnv1, U2, ...); OpenGraphAU has a list
    (graph_layers.0.U, graph_layers.0.bnv, ...).
    """
    state = {}
    for key, value in author.items():
        module, entry = key.rsplit(".", 1)
        if module.startswith("graph_layers."):
            _, index, name = module.split(".")
        else:
            name, index = module[:-1], str(int(module[-1]) - 1)
        value = _square(value) if name == "bne" else value
        state[f"layers.{index}.{_GATED[name]}.{entry}"] = value
    return state


def _block_keys(author: Mapping[str, Tensor], index: int) -> list[str]:
    prefix = f"{index}."
    return [key.removeprefix(prefix) for key in author if key.startswith(prefix)]


def _square(value: Tensor) -> Tensor:
    """Return an entry of a normalization over N*N pairs as (N, N)."""
    if value.dim() == 0:
        return value
    nodes = round(value.numel() ** 0.5)
    return value.view(nodes, nodes)
