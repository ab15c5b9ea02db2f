"""OpenGraphAU's released weights: the authors' names and shapes, and their conversion.

They are those of ME-GraphAU for the main AUs, under slightly different names, and `sub_sc`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aurel.backbones.build import Backbone
from aurel.facs import AU_SETS, OPENGRAPHAU_PARENTS_RELEASED, AUSet
from aurel.layers.token_projection import TokenProjection
from aurel.models.author_keys import me_graphau
from aurel.models.author_keys.shapes import Shapes, State, TrunkModel
from aurel.models.base import ModelConfig
from aurel.models.registry import AuthorLayout

if TYPE_CHECKING:
    from aurel.models.open_graphau import OpenGraphAU, OpenGraphAUStage1

_OPENGRAPHAU = AU_SETS["OpenGraphAU"]
_PROTOTYPES = "head.classifier.prototypes"


@dataclass(frozen=True)
class _MainPart:
    """A model of OpenGraphAU as one of ME-GraphAU whose AUs are the main ones."""

    config: ModelConfig
    aus: AUSet
    backbone: Backbone
    projection: TokenProjection


def _main_part(model: TrunkModel) -> _MainPart:
    if model.aus != _OPENGRAPHAU:
        raise ValueError(
            f"aus must be the {len(_OPENGRAPHAU)} AUs of the set OpenGraphAU, for which weights "
            f"were released, got {', '.join(model.aus.names)}"
        )
    return _MainPart(model.config, AU_SETS["OpenGraphAU-main"], model.backbone, model.projection)


def _to_author(key: str) -> str:
    """Return OpenGraphAU's name of a key of ME-GraphAU."""
    key = re.sub(r"^head\.(sc|class_linears)\b", r"head.main_\1", key)
    return re.sub(
        r"^head\.gnn\.(\w+)([12])\.",
        lambda match: f"head.gnn.graph_layers.{int(match[2]) - 1}.{match[1]}.",
        key,
    )


def _shapes(layout: AuthorLayout, model: TrunkModel) -> Shapes:
    main = _main_part(model)
    shapes = {
        _to_author(key): shape
        for key, shape in layout.shapes(main).items()
        if not key.startswith("head.edge_fc.")
    }
    laterals = len(model.aus) - len(main.aus)
    return {**shapes, "head.sub_sc": (laterals, model.projection.out_channels)}


def _convert(layout: AuthorLayout, author: Mapping[str, Tensor], model: TrunkModel) -> State:
    main = {key.replace("head.main_", "head."): value for key, value in author.items()}
    state = layout.convert(main, _main_part(model))
    return {**state, _PROTOTYPES: torch.cat((author["head.main_sc"], author["head.sub_sc"]))}


def _read_as_released(model: OpenGraphAUStage1 | OpenGraphAU) -> None:
    """Classify AU12L and AU12R from the node of AU11, as in the authors' training."""
    nodes = (*range(len(AU_SETS["OpenGraphAU-main"])), *OPENGRAPHAU_PARENTS_RELEASED)
    model.head.selection.read(nodes)
    model.config = dataclasses.replace(model.config, lateral_parents="released")


def _adopt_stage1(model: OpenGraphAUStage1) -> None:
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
