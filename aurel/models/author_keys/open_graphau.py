"""OpenGraphAU's released weights: the authors' names and shapes, and ours.

They are those of ME-GraphAU for the main AUs, spelled a little differently, and `sub_sc`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from aurel.facs import AU_SETS, OPENGRAPHAU_PARENTS_RELEASED
from aurel.models.author_keys import me_graphau
from aurel.models.registry import AuthorLayout

_OPENGRAPHAU = AU_SETS["OpenGraphAU"]
_PROTOTYPES = "head.classifier.prototypes"


def _main_part(model: Any) -> Any:
    """Return `model` as a model of ME-GraphAU whose AUs are the main ones."""
    if model.aus != _OPENGRAPHAU:
        raise ValueError(
            f"the authors' OpenGraphAU has the {len(_OPENGRAPHAU)} AUs of the set OpenGraphAU, "
            f"this model has {', '.join(model.aus.names)}"
        )
    return SimpleNamespace(
        config=model.config,
        aus=AU_SETS["OpenGraphAU-main"],
        backbone=model.backbone,
        projection=model.projection,
    )


def _to_author(key: str) -> str:
    """Return OpenGraphAU's spelling of a key of ME-GraphAU."""
    key = re.sub(r"^head\.(sc|class_linears)\b", r"head.main_\1", key)
    return re.sub(
        r"^head\.gnn\.(\w+)([12])\.",
        lambda match: f"head.gnn.graph_layers.{int(match[2]) - 1}.{match[1]}.",
        key,
    )


def _shapes(layout: AuthorLayout, model: Any) -> dict[str, tuple[int, ...]]:
    main = _main_part(model)
    shapes = {
        _to_author(key): shape
        for key, shape in layout.shapes(main).items()
        if not key.startswith("head.edge_fc.")
    }
    laterals = len(model.aus) - len(main.aus)
    return {**shapes, "head.sub_sc": (laterals, model.projection.out_channels)}


def _convert(layout: AuthorLayout, author: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    main = {key.replace("head.main_", "head."): value for key, value in author.items()}
    ours = layout.convert(main, _main_part(model))
    return {**ours, _PROTOTYPES: torch.cat((author["head.main_sc"], author["head.sub_sc"]))}


def _read_as_released(model: Any) -> None:
    """Let AU12L and AU12R read the node of AU11, as they were trained."""
    nodes = (*range(len(AU_SETS["OpenGraphAU-main"])), *OPENGRAPHAU_PARENTS_RELEASED)
    model.head.read(nodes)
    model.config = dataclasses.replace(model.config, lateral_parents="released")


def _adopt_stage1(model: Any) -> None:
    me_graphau.STAGE1.adopt(model)
    _read_as_released(model)


STAGE1 = AuthorLayout(
    partial(_shapes, me_graphau.STAGE1),
    partial(_convert, me_graphau.STAGE1),
    _adopt_stage1,
    me_graphau.STAGE1.ignored,
)
STAGE2 = AuthorLayout(
    partial(_shapes, me_graphau.STAGE2),
    partial(_convert, me_graphau.STAGE2),
    _read_as_released,
    me_graphau.STAGE2.ignored,
)
