"""OpenFace 3.0's released weights: the authors' names and shapes, and their conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aurel.models.author_keys.layers import cosine_classifier, topk_graph_conv
from aurel.models.author_keys.shapes import Shapes, State, affine, batch_norm, flat, under
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.openface3 import OpenFace3

_OTHER_HEADS = ("fc_emotion.", "fc_gaze.", "emotion_classifier.", "gaze_regressor.")
_EXPANSION = {"0.": "conv_head.", "1.": "bn2."}


def _trunk_names(model: OpenFace3) -> dict[str, str]:
    """Return the authors' name of each tensor of the backbone and its last convolution."""
    names = {
        f"backbone.net.{name}": f"base_model.{name}" for name in model.backbone.net.state_dict()
    }
    for name in model.expansion.state_dict():
        names[f"expansion.{name}"] = f"base_model.{_EXPANSION[name[:2]]}{name[2:]}"
    return names


def _shapes(model: OpenFace3) -> Shapes:
    state, head = model.state_dict(), "au_regressor"
    nodes, width = model.classifier.prototypes.shape
    shapes = {author: tuple(state[name].shape) for name, author in _trunk_names(model).items()}
    for node in range(nodes):
        shapes |= affine(f"{head}.class_linears.{node}", width, width)
    return {
        **shapes,
        **affine("fc_au", width, width),
        **affine(f"{head}.gnn.U", width, width),
        **affine(f"{head}.gnn.V", width, width),
        **batch_norm(f"{head}.gnn.bnv", nodes),
        f"{head}.sc": (nodes, width),
    }


def _convert(author: Mapping[str, Tensor], model: OpenFace3) -> State:
    head = under(author, "au_regressor.")
    linears = {
        entry: torch.cat([head[f"class_linears.{node}.{entry}"] for node in range(len(model.aus))])
        for entry in ("weight", "bias")
    }
    own = {
        "project": under(author, "fc_au."),
        "features": linears,
        "relation": topk_graph_conv(under(head, "gnn.")),
        "classifier": cosine_classifier(head),
    }
    return {name: author[key] for name, key in _trunk_names(model).items()} | flat(own)


LAYOUT = AuthorLayout(_shapes, _convert, other_heads=_OTHER_HEADS)
