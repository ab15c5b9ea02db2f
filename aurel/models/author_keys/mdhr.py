"""MDHR's released weights: the authors' names and shapes, and ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from aurel.facs import RegionPlan
from aurel.models.author_keys import swin
from aurel.models.author_keys.cross_region import cross_region_gat
from aurel.models.author_keys.edges import (
    au_specific_features,
    cosine_classifier,
    token_projection,
)
from aurel.models.registry import AuthorLayout

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

# The groups of the released models: BP4D's and DISFA's.
_GROUPS = {
    ("upper", "middle", "lower1", "lower2"): ("up", "mid", "down1", "down2"),
    ("upper", "middle", "lower"): ("up", "mid", "down"),
}
_SCALES = (1, 2, 3, 4)


def facial_dynamics(author: Mapping[str, Tensor]) -> State:
    """Map `MFD` (conv1, bn1, weight_1, wbn1, ..., weight, convcat, bn) onto `FacialDynamics`."""
    modules = {"project.0": "convcat", "project.1": "bn", "weigh": "weight"}
    for index, scale in enumerate(_SCALES):
        modules[f"scales.{index}.0"] = f"conv{scale}"
        modules[f"scales.{index}.1"] = f"bn{scale}"
        modules[f"gates.{index}.0"] = f"weight_{scale}"
        modules[f"gates.{index}.1"] = f"wbn{scale}"
    return _flat({ours: _under(author, f"{theirs}.") for ours, theirs in modules.items()})


def regional_au_features(author: Mapping[str, Tensor], plan: RegionPlan) -> State:
    """Map `LRM` (class_linears.0, ..., up_linear, up_fc, ...) onto `RegionalAUFeatures`."""
    modules: dict[str, State] = {}
    for group, (columns, name) in enumerate(zip(plan.columns, _group_names(plan), strict=True)):
        own = {
            f"{index}.{key}": value
            for index, column in enumerate(columns)
            for key, value in _under(author, f"class_linears.{column}.").items()
        }
        modules[f"features.{group}"] = au_specific_features(own)
        modules[f"projections.{group}"] = token_projection(_under(author, f"{name}_linear."))
        modules[f"heads.{group}"] = _under(author, f"{name}_fc.")
    return _flat(modules)


def per_au_temporal_conv(author: Mapping[str, Tensor]) -> State:
    """Map `TCN` (temporal_cnn.0, ..., bn) onto `PerAUTemporalConv`."""
    count = len([key for key in author if key.startswith("temporal_cnn.")]) // 2
    conv = {
        entry: torch.cat([author[f"temporal_cnn.{node}.{entry}"] for node in range(count)])
        for entry in ("weight", "bias")
    }
    return _flat({"conv": conv, "norm": _under(author, "bn.")})


def _group_names(plan: RegionPlan) -> tuple[str, ...]:
    if plan.names not in _GROUPS:
        raise ValueError(
            "the authors of MDHR released weights for the AU groups of BP4D and of DISFA, "
            f"the model has {', '.join(plan.names)}"
        )
    return _GROUPS[plan.names]


def _shapes(model: Any) -> Shapes:
    _check_whole(model)
    channels, nodes = model.projection.out_channels, len(model.aus)
    dynamics, plan = model.dynamics, model.features.plan
    shapes = {f"Backbone.{theirs}": shape for theirs, _, shape in _backbone_names(model)}
    shapes.update(_linear_block("global_linear", model.projection.in_channels, channels))
    hidden = dynamics.hidden_channels
    per_scale = zip(_SCALES, dynamics.in_channels, dynamics.strides, strict=True)
    for scale, width, stride in per_scale:
        shapes.update(_affine(f"MFD.conv{scale}", hidden, width, stride, stride))
        shapes.update(_batch_norm(f"MFD.bn{scale}", hidden))
        shapes.update(_affine(f"MFD.weight_{scale}", 16, hidden, 1, 1))
        shapes.update(_batch_norm(f"MFD.wbn{scale}", 16))
    shapes.update(_affine("MFD.weight", len(_SCALES), 16 * len(_SCALES), 1, 1))
    shapes.update(_affine("MFD.convcat", channels, hidden, 1, 1))
    shapes.update(_batch_norm("MFD.bn", channels))
    for name, classes in zip(_group_names(plan), plan.num_classes, strict=True):
        if model.features.group_projections:
            shapes.update(_linear_block(f"LRM.{name}_linear", channels, channels))
        shapes.update(_affine(f"LRM.{name}_fc", classes, channels))
    for node in range(nodes):
        shapes.update(_linear_block(f"LRM.class_linears.{node}", channels, channels))
        shapes.update(_affine(f"TCN.temporal_cnn.{node}", channels, 1, 5))
    shapes.update(_batch_norm("TCN.bn", nodes))
    shapes["CRM.gat.linear.weight"] = (channels, channels)
    shapes["CRM.gat.scoring_fn_source"] = shapes["CRM.gat.scoring_fn_target"] = (1, 1, channels)
    shapes["CRM.gat.bias"] = (channels,)
    return {**shapes, "node_classifier.sc": (nodes, channels)}


def _convert(author: Mapping[str, Tensor], model: Any) -> State:
    return _flat(
        {
            "backbone.net": {
                ours: author[f"Backbone.{theirs}"] for theirs, ours, _ in _backbone_names(model)
            },
            "projection": token_projection(_under(author, "global_linear.")),
            "dynamics": facial_dynamics(_under(author, "MFD.")),
            "features": regional_au_features(_under(author, "LRM."), model.features.plan),
            "relation": cross_region_gat(_under(author, "CRM.")),
            "temporal": per_au_temporal_conv(_under(author, "TCN.")),
            "classifier": cosine_classifier(_under(author, "node_classifier.")),
        }
    )


def _check_whole(model: Any) -> None:
    config = model.config
    whole = (
        config.scales == _SCALES
        and config.fusion == "adaptive"
        and config.regional
        and config.auxiliary
        and config.edges is not None
        and config.temporal
    )
    if not whole:
        raise ValueError(f"the authors of MDHR released the whole model only, not {config}")


def _backbone_names(model: Any) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Return (authors' name, ours, shape) of every tensor of the backbone."""
    family = model.config.backbone.split("_")[0]
    if not family.startswith(("resnet", "swin")):
        raise ValueError(
            "the authors of MDHR have ResNet and Swin backbones, the model has "
            f"{model.config.backbone}"
        )
    rename = swin.original_name if family == "swin" else str
    for name, value in model.backbone.net.state_dict().items():
        yield rename(name), name, tuple(value.shape)


def _affine(name: str, outputs: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def _batch_norm(name: str, channels: int) -> Shapes:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{name}.{entry}": (channels,) for entry in per_channel},
        f"{name}.num_batches_tracked": (),
    }


def _linear_block(name: str, inputs: int, outputs: int) -> Shapes:
    return {**_affine(f"{name}.fc", outputs, inputs), **_batch_norm(f"{name}.bn", outputs)}


def _under(author: Mapping[str, Tensor], prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in author.items() if k.startswith(prefix)}


def _flat(modules: Mapping[str, Mapping[str, Tensor]]) -> State:
    return {f"{name}.{k}": v for name, state in modules.items() for k, v in state.items()}


LAYOUT = AuthorLayout(_shapes, _convert, ignored=swin.IGNORED)
