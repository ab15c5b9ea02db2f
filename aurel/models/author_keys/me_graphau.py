"""ME-GraphAU's released weights: the authors' names and shapes, and their conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from aurel.models.author_keys.layers import (
    au_specific_features,
    cosine_classifier,
    gated_edge_gcn,
    multi_dimensional_edges,
    token_projection,
    topk_graph_conv,
)
from aurel.models.author_keys.shapes import (
    SWIN_BUFFERS,
    Shapes,
    State,
    TrunkModel,
    backbone_names,
    batch_norm,
    flat,
    linear_block,
    under,
)
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.macg import MACG
    from aurel.models.me_graphau import MEGraphAUStage1


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def _shared_shapes(model: TrunkModel) -> Shapes:
    """Return the shapes that both stages have: backbone, global_linear, class_linears, sc."""
    channels, nodes = model.projection.out_channels, len(model.aus)
    shapes = {f"backbone.{name}": shape for name, _, shape in backbone_names(model, "ME-GraphAU")}
    shapes.update(linear_block("global_linear", model.projection.in_channels, channels))
    for node in range(nodes):
        shapes.update(linear_block(f"head.class_linears.{node}", channels, channels))
    return {**shapes, "head.sc": (nodes, channels)}


def _stage1_shapes(model: TrunkModel) -> Shapes:
    channels, nodes = model.projection.out_channels, len(model.aus)
    return {
        **_shared_shapes(model),
        **_linear("head.gnn.U", channels, channels),
        **_linear("head.gnn.V", channels, channels),
        **batch_norm("head.gnn.bnv", nodes),
    }


def _stage2_shapes(model: TrunkModel) -> Shapes:
    channels, nodes = model.projection.out_channels, len(model.aus)
    shapes = _shared_shapes(model)
    for attention in ("FAM", "ARM"):
        name = f"head.edge_extractor.{attention}.linear"
        shapes.update(_linear(f"{name}_q", channels, channels // 2))
        shapes.update(_linear(f"{name}_k", channels, channels // 2))
        shapes.update(_linear(f"{name}_v", channels, channels))
    shapes.update(_linear("head.edge_extractor.edge_proj", channels, channels))
    shapes.update(batch_norm("head.edge_extractor.bn", nodes**2))
    for layer in (1, 2):
        for matrix in "UVABE":
            shapes.update(_linear(f"head.gnn.{matrix}{layer}", channels, channels, bias=False))
        shapes.update(batch_norm(f"head.gnn.bnv{layer}", nodes))
        shapes.update(batch_norm(f"head.gnn.bne{layer}", nodes**2))
    return {**shapes, **_linear("head.edge_fc", channels, 4)}


def _shared(author: Mapping[str, Tensor], model: TrunkModel) -> dict[str, State]:
    """Return the state dict of each module that both stages have, by its name."""
    return {
        "backbone.net": {
            name: author[f"backbone.{author_name}"]
            for author_name, name, _ in backbone_names(model, "ME-GraphAU")
        },
        "projection": token_projection(under(author, "global_linear.")),
        "head.features": au_specific_features(under(author, "head.class_linears.")),
        "head.classifier": cosine_classifier(under(author, "head.")),
    }


def _convert_stage1(author: Mapping[str, Tensor], model: TrunkModel) -> State:
    relation = topk_graph_conv(under(author, "head.gnn."))
    return flat({**_shared(author, model), "head.relation": relation})


def _convert_stage2(author: Mapping[str, Tensor], model: TrunkModel) -> State:
    own = {
        "head.edges": multi_dimensional_edges(under(author, "head.edge_extractor.")),
        "head.relation": gated_edge_gcn(under(author, "head.gnn.")),
        "head.edge_classifier": under(author, "head.edge_fc."),
    }
    return flat({**_shared(author, model), **own})


def _keep_all_ties(model: MEGraphAUStage1 | MACG) -> None:
    model.config = dataclasses.replace(model.config, ties="all")
    if model.head.relation is not None:
        model.head.relation.ties = "all"


STAGE1 = AuthorLayout(_stage1_shapes, _convert_stage1, _keep_all_ties, SWIN_BUFFERS)
STAGE2 = AuthorLayout(_stage2_shapes, _convert_stage2, ignored=SWIN_BUFFERS)
