"""MDHR's released weights: the authors' names and shapes, and their conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aurel.facs import RegionPlan
from aurel.models.author_keys.layers import (
    au_specific_features,
    cosine_classifier,
    token_projection,
)
from aurel.models.author_keys.shapes import (
    SWIN_BUFFERS,
    Shapes,
    State,
    affine,
    backbone_names,
    batch_norm,
    flat,
    linear_block,
    under,
)
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.mdhr import MDHR

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
    return flat({name: under(author, f"{module}.") for name, module in modules.items()})


def regional_au_features(author: Mapping[str, Tensor], plan: RegionPlan) -> State:
    """Map `LRM` (class_linears.0, ..., up_linear, up_fc, ...) onto `RegionalAUFeatures`."""
    modules: dict[str, State] = {}
    for group, (columns, name) in enumerate(zip(plan.columns, _group_names(plan), strict=True)):
        own = {
            f"{index}.{key}": value
            for index, column in enumerate(columns)
            for key, value in under(author, f"class_linears.{column}.").items()
        }
        modules[f"features.{group}"] = au_specific_features(own)
        modules[f"projections.{group}"] = token_projection(under(author, f"{name}_linear."))
        modules[f"heads.{group}"] = under(author, f"{name}_fc.")
    return flat(modules)


def cross_region_gat(author: Mapping[str, Tensor]) -> State:
    """Map `CRM` (gat.linear, gat.scoring_fn_source, ...), or its attention, onto `CrossRegionGAT`.

    The authors call the node in the row the source; here it is the target of the messages.
    """
    gat = {key.removeprefix("gat."): value for key, value in author.items()}
    return {
        "linear.weight": gat["linear.weight"],
        "bias": gat["bias"],
        "target_attention": gat["scoring_fn_source"].squeeze(0),
        "source_attention": gat["scoring_fn_target"].squeeze(0),
    }


def per_au_temporal_conv(author: Mapping[str, Tensor]) -> State:
    """Map `TCN` (temporal_cnn.0, ..., bn) onto `PerAUTemporalConv`."""
    count = len([key for key in author if key.startswith("temporal_cnn.")]) // 2
    conv = {
        entry: torch.cat([author[f"temporal_cnn.{node}.{entry}"] for node in range(count)])
        for entry in ("weight", "bias")
    }
    return flat({"conv": conv, "norm": under(author, "bn.")})


def _group_names(plan: RegionPlan) -> tuple[str, ...]:
    if plan.names not in _GROUPS:
        raise ValueError(
            "groups must be those of BP4D or DISFA, for which weights of MDHR were released, got "
            f"{', '.join(plan.names)}"
        )
    return _GROUPS[plan.names]


def _shapes(model: MDHR) -> Shapes:
    _check_complete(model)
    channels, nodes = model.projection.out_channels, len(model.aus)
    dynamics, features = model.dynamics, model.features
    assert dynamics is not None and features is not None
    shapes = {f"Backbone.{name}": shape for name, _, shape in backbone_names(model, "MDHR")}
    shapes.update(linear_block("global_linear", model.projection.in_channels, channels))
    hidden = dynamics.hidden_channels
    per_scale = zip(_SCALES, dynamics.in_channels, dynamics.strides, strict=True)
    for scale, width, stride in per_scale:
        shapes.update(affine(f"MFD.conv{scale}", hidden, width, stride, stride))
        shapes.update(batch_norm(f"MFD.bn{scale}", hidden))
        shapes.update(affine(f"MFD.weight_{scale}", 16, hidden, 1, 1))
        shapes.update(batch_norm(f"MFD.wbn{scale}", 16))
    shapes.update(affine("MFD.weight", len(_SCALES), 16 * len(_SCALES), 1, 1))
    shapes.update(affine("MFD.convcat", channels, hidden, 1, 1))
    shapes.update(batch_norm("MFD.bn", channels))
    for name, classes in zip(_group_names(features.plan), features.plan.num_classes, strict=True):
        if features.group_projections:
            shapes.update(linear_block(f"LRM.{name}_linear", channels, channels))
        shapes.update(affine(f"LRM.{name}_fc", classes, channels))
    for node in range(nodes):
        shapes.update(linear_block(f"LRM.class_linears.{node}", channels, channels))
        shapes.update(affine(f"TCN.temporal_cnn.{node}", channels, 1, 5))
    shapes.update(batch_norm("TCN.bn", nodes))
    shapes["CRM.gat.linear.weight"] = (channels, channels)
    shapes["CRM.gat.scoring_fn_source"] = shapes["CRM.gat.scoring_fn_target"] = (1, 1, channels)
    shapes["CRM.gat.bias"] = (channels,)
    return {**shapes, "node_classifier.sc": (nodes, channels)}


def _convert(author: Mapping[str, Tensor], model: MDHR) -> State:
    assert model.features is not None
    return flat(
        {
            "backbone.net": {
                name: author[f"Backbone.{author_name}"]
                for author_name, name, _ in backbone_names(model, "MDHR")
            },
            "projection": token_projection(under(author, "global_linear.")),
            "dynamics": facial_dynamics(under(author, "MFD.")),
            "features": regional_au_features(under(author, "LRM."), model.features.plan),
            "relation": cross_region_gat(under(author, "CRM.")),
            "temporal": per_au_temporal_conv(under(author, "TCN.")),
            "classifier": cosine_classifier(under(author, "node_classifier.")),
        }
    )


def _check_complete(model: MDHR) -> None:
    config = model.config
    complete = (
        config.scales == _SCALES
        and config.fusion == "adaptive"
        and config.regional
        and config.auxiliary
        and config.edges is not None
        and config.temporal
    )
    if not complete:
        raise ValueError(
            f"the options must be those of the complete MDHR, of which weights were released, got "
            f"{config}"
        )


LAYOUT = AuthorLayout(_shapes, _convert, ignored=SWIN_BUFFERS)
