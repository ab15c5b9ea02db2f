"""ME-GraphAU's released weights: the authors' names and shapes, and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from aurel.models.author_keys import swin
from aurel.models.author_keys.edges import (
    au_specific_features,
    cosine_classifier,
    gated_edge_gcn,
    multi_dimensional_edges,
    token_projection,
)
from aurel.models.author_keys.facial_graph_generator import topk_graph_conv
from aurel.models.registry import AuthorLayout

Shapes = dict[str, tuple[int, ...]]


def _batch_norm(name: str, channels: int) -> Shapes:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{name}.{entry}": (channels,) for entry in per_channel},
        f"{name}.num_batches_tracked": (),
    }


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def _linear_block(name: str, inputs: int, outputs: int) -> Shapes:
    return {**_linear(f"{name}.fc", inputs, outputs), **_batch_norm(f"{name}.bn", outputs)}


def _shared_shapes(model: Any) -> Shapes:
    """Shapes of what both stages have: backbone, global_linear, class_linears, sc."""
    channels, nodes = model.projection.out_channels, len(model.aus)
    shapes = {f"backbone.{theirs}": shape for theirs, _, shape in _backbone_names(model)}
    shapes.update(_linear_block("global_linear", model.projection.in_channels, channels))
    for node in range(nodes):
        shapes.update(_linear_block(f"head.class_linears.{node}", channels, channels))
    return {**shapes, "head.sc": (nodes, channels)}


def _stage1_shapes(model: Any) -> Shapes:
    channels, nodes = model.projection.out_channels, len(model.aus)
    return {
        **_shared_shapes(model),
        **_linear("head.gnn.U", channels, channels),
        **_linear("head.gnn.V", channels, channels),
        **_batch_norm("head.gnn.bnv", nodes),
    }


def _stage2_shapes(model: Any) -> Shapes:
    channels, nodes = model.projection.out_channels, len(model.aus)
    shapes = _shared_shapes(model)
    for attention in ("FAM", "ARM"):
        name = f"head.edge_extractor.{attention}.linear"
        shapes.update(_linear(f"{name}_q", channels, channels // 2))
        shapes.update(_linear(f"{name}_k", channels, channels // 2))
        shapes.update(_linear(f"{name}_v", channels, channels))
    shapes.update(_linear("head.edge_extractor.edge_proj", channels, channels))
    shapes.update(_batch_norm("head.edge_extractor.bn", nodes**2))
    for layer in (1, 2):
        for matrix in "UVABE":
            shapes.update(_linear(f"head.gnn.{matrix}{layer}", channels, channels, bias=False))
        shapes.update(_batch_norm(f"head.gnn.bnv{layer}", nodes))
        shapes.update(_batch_norm(f"head.gnn.bne{layer}", nodes**2))
    return {**shapes, **_linear("head.edge_fc", channels, 4)}


def _backbone_names(model: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return (authors' name, ours, shape) of every tensor of the backbone."""
    family = model.config.backbone.split("_")[0]
    if not family.startswith(("resnet", "swin")):
        raise ValueError(
            "the authors of ME-GraphAU released weights for ResNet and Swin backbones, "
            f"the model has {model.config.backbone}"
        )
    rename = swin.original_name if family == "swin" else str
    return [
        (rename(name), name, tuple(value.shape))
        for name, value in model.backbone.net.state_dict().items()
    ]


def _under(author: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in author.items() if k.startswith(prefix)}


def _shared(author: Mapping[str, Tensor], model: Any) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts, by module of ours, of what both stages have."""
    return {
        "backbone.net": {
            ours: author[f"backbone.{theirs}"] for theirs, ours, _ in _backbone_names(model)
        },
        "projection": token_projection(_under(author, "global_linear.")),
        "head.features": au_specific_features(_under(author, "head.class_linears.")),
        "head.classifier": cosine_classifier(_under(author, "head.")),
    }


def _flat(modules: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{name}.{k}": v for name, state in modules.items() for k, v in state.items()}


def _convert_stage1(author: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    relation = topk_graph_conv(_under(author, "head.gnn."))
    return _flat({**_shared(author, model), "head.relation": relation})


def _convert_stage2(author: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    own = {
        "head.edges": multi_dimensional_edges(_under(author, "head.edge_extractor.")),
        "head.relation": gated_edge_gcn(_under(author, "head.gnn.")),
        "head.edge_classifier": _under(author, "head.edge_fc."),
    }
    return _flat({**_shared(author, model), **own})


def _keep_all_ties(model: Any) -> None:
    model.config = dataclasses.replace(model.config, ties="all")
    model.head.relation.ties = "all"


STAGE1 = AuthorLayout(_stage1_shapes, _convert_stage1, _keep_all_ties, swin.IGNORED)
STAGE2 = AuthorLayout(_stage2_shapes, _convert_stage2, ignored=swin.IGNORED)
