"""Shapes, prefixes and names of backbones, for the conversions of all models.

The original code of the Swin Transformer merges patches at the end of stages 0 to 2, timm's at the
start of stages 1 to 3; the order of the four merged patches is the same. The original also stores
two kinds of buffers that follow from the architecture: attention masks and position indices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from aurel.backbones.build import Backbone
from aurel.facs import AUSet
from aurel.layers.token_projection import TokenProjection
from aurel.models.base import ModelConfig

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
SWIN_BUFFERS = (".attn_mask", ".relative_position_index")
_MASKED_AUTOENCODER = "vit_base_patch16_sincos"  # of OpenGraphAU only


class TrunkModel(Protocol):
    """A model whose tokens are the projected last map of a backbone."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def aus(self) -> AUSet: ...

    @property
    def backbone(self) -> Backbone: ...

    @property
    def projection(self) -> TokenProjection: ...


def affine(name: str, outputs: int, *inputs: int) -> Shapes:
    """Return the shapes of a linear layer, or of a convolution with (channels, kernel...)."""
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def batch_norm(name: str, channels: int) -> Shapes:
    """Return the shapes of a batch normalization."""
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{name}.{entry}": (channels,) for entry in per_channel},
        f"{name}.num_batches_tracked": (),
    }


def linear_block(name: str, inputs: int, outputs: int) -> Shapes:
    """Return the shapes of the authors' `LinearBlock`: fc, bn."""
    return {**affine(f"{name}.fc", outputs, inputs), **batch_norm(f"{name}.bn", outputs)}


def under(author: Mapping[str, Tensor], prefix: str) -> State:
    """Return the entries whose keys begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in author.items() if k.startswith(prefix)}


def flat(modules: Mapping[str, Mapping[str, Tensor]]) -> State:
    """Return one state dict for those of several modules."""
    return {f"{name}.{k}": v for name, state in modules.items() for k, v in state.items()}


def backbone_names(model: TrunkModel, paper: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return (authors' name, name, shape) of every tensor of the backbone.

    Raises:
        ValueError: the authors of `paper` have no backbone of this family.
    """
    backbone = model.config.backbone
    rename: Callable[[str], str]
    if backbone == _MASKED_AUTOENCODER:
        rename = "encoder.{}".format
    elif backbone.startswith(("resnet", "swin_")):
        rename = _original_swin_name if backbone.startswith("swin_") else str
    else:
        raise ValueError(
            f"backbone must be a ResNet or Swin, which the authors of {paper} have, got {backbone}"
        )
    return [
        (rename(name), name, tuple(value.shape))
        for name, value in model.backbone.net.state_dict().items()
    ]


def _original_swin_name(timm_name: str) -> str:
    """Return `layers.0.downsample.norm.weight` for timm's `layers.1.downsample.norm.weight`."""
    return re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda match: f"layers.{int(match[1]) - 1}.downsample.",
        timm_name,
    )
