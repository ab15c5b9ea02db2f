"""py-feat 2's released weights: the authors' names and shapes, and their conversion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aurel.models.author_keys.shapes import Shapes, State, batch_norm, flat, under
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.pyfeat_multitask import PyFeatMultitask

_OTHER_HEADS = (
    "lmk.",
    "pose.",
    "blendshape.",
    "unified.",
    "emotion.",
    "gaze.",
    "gaze_eye_enc.",
    "log_var_",
)
_NORM = ("weight", "bias", "running_mean", "running_var")


def _backbone_names(model: PyFeatMultitask) -> dict[str, str]:
    """Return the authors' name of each tensor of the backbone: `stages_0.` for `stages.0.`."""
    return {
        f"backbone.net.{name}": f"backbone.{name.replace('.', '_', 1)}"
        for name in model.backbone.net.state_dict()
    }


def _shapes(model: PyFeatMultitask) -> Shapes:
    state = model.state_dict()
    nodes, width = model.classifier.prototypes.shape
    shapes = {author: tuple(state[name].shape) for name, author in _backbone_names(model).items()}
    for node in range(nodes):
        shapes[f"afg.heads.{node}.0.weight"] = (width, width, 1, 1)
        shapes |= batch_norm(f"afg.heads.{node}.1", width)
    return {
        **shapes,
        "proj.weight": (width, model.projection.in_features, 1, 1),
        "fgg.W.weight": (width, width),
        "fgg.W_self.weight": (width, width),
        "sc.s": (nodes, width),
    }


def _convert(author: Mapping[str, Tensor], model: PyFeatMultitask) -> State:
    heads = [under(author, f"afg.heads.{node}.") for node in range(len(model.aus))]
    weight = torch.cat([head["0.weight"] for head in heads]).flatten(1)
    features = {
        "linear.weight": weight,
        "linear.bias": weight.new_zeros(len(weight)),
        "norm.num_batches_tracked": heads[0]["1.num_batches_tracked"],
    }
    for entry in _NORM:
        features[f"norm.{entry}"] = torch.cat([head[f"1.{entry}"] for head in heads])
    own = {
        "projection": {"weight": author["proj.weight"].flatten(1)},
        "features": features,
        "relation": {
            "message.weight": author["fgg.W.weight"],
            "node.weight": author["fgg.W_self.weight"],
        },
        "classifier": {"prototypes": author["sc.s"]},
    }
    return {name: author[key] for name, key in _backbone_names(model).items()} | flat(own)


def _check_header(header: Mapping[str, str], model: PyFeatMultitask) -> None:
    """Raise ValueError where the options in the file's header are not those of the model."""
    found = json.loads(header.get("config", "{}"))
    expected = {"knn_k": model.config.k, "drop_mefl": True, "n_au": len(model.aus)}
    other = {key: found[key] for key in expected if found.get(key, expected[key]) != expected[key]}
    if other:
        raise ValueError(
            f"the options in the header of the weights must be "
            f"{ {key: expected[key] for key in other} }, as those of the model, got {other}"
        )


LAYOUT = AuthorLayout(_shapes, _convert, other_heads=_OTHER_HEADS, check_header=_check_header)
