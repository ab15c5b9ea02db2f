"""What the maps from the authors' names to ours have in common: shapes, prefixes, backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from aurel.backbones.build import Backbone
from aurel.facs import AUSet
from aurel.layers.token_projection import TokenProjection
from aurel.models.author_keys import swin
from aurel.models.base import ModelConfig

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
_MASKED_AUTOENCODER = "vit_base_patch16_sincos"  # of OpenGraphAU alone


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
    """Return the shapes of a batch normalisation."""
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
    """Return (authors' name, ours, shape) of every tensor of the backbone.

    Raises:
        ValueError: the backbone is of a family that the authors of `paper` do not have.
    """
    backbone = model.config.backbone
    rename: Callable[[str], str]
    if backbone == _MASKED_AUTOENCODER:
        rename = "encoder.{}".format
    elif backbone.startswith(("resnet", "swin_")):
        rename = swin.original_name if backbone.startswith("swin_") else str
    else:
        raise ValueError(
            f"the authors of {paper} have ResNet and Swin backbones, the model has {backbone}"
        )
    return [
        (rename(name), name, tuple(value.shape))
        for name, value in model.backbone.net.state_dict().items()
    ]
