"""Starting a model from the weights of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from aurel.backbones.build import architecture, build_backbone, build_network
from aurel.models import gtle_net, me_graphau, open_graphau
from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.models.expression_encoder import ExpressionEncoder
from aurel.models.gtle_net import GTLENet
from aurel.models.me_graphau import MEGraphAU, MEGraphAUStage1
from aurel.models.open_graphau import OpenGraphAU, OpenGraphAUStage1


def load_backbone_weights(model: Any, path: str | Path) -> None:
    """Load a file of backbone weights, as `build_backbone(checkpoint=...)` reads it.

    Args:
        model: made by `create_model`.
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the weights do not fit the backbone.
    """
    name = model.config.backbone
    try:
        if isinstance(model, ExpressionEncoder):
            loaded = build_network(name, checkpoint=path).state_dict()
            model.net.load_state_dict({**model.net.state_dict(), **loaded})
            return
        ours = model.backbone
        loaded = build_backbone(
            name, checkpoint=path, out_indices=ours.out_indices, final_norm=ours.final_norm
        )
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the backbone {name}: {error}") from error
    ours.load_state_dict(loaded.state_dict())


def start_from(model: Any, path: str | Path) -> list[str]:
    """Take over the weights in `path` as far as they belong into `model`.

    Stage 2 of ME-GraphAU and of OpenGraphAU inherits from its stage 1 as the authors have it, and
    GTLE-Net's backbone from an expression encoder. Any other pair must be the same kind of model;
    tensors of equal name and shape are taken, which for other AUs leaves out what depends on their
    number.

    Args:
        model: made by `create_model`.
        path: checkpoint of a trained model.

    Returns:
        Names of the tensors of `model` that keep their fresh values.

    Raises:
        ValueError: the models are of different kinds, backbones or widths, or are for different
            AUs of equal number, whose weights could not be told apart.
    """
    source = load_model(path)
    if isinstance(model, MEGraphAU) and isinstance(source, MEGraphAUStage1):
        me_graphau.start_from_stage1(model, source)
        return _named(model, "head.edge", "head.relation.")
    if isinstance(model, OpenGraphAU) and isinstance(source, OpenGraphAUStage1):
        open_graphau.start_from_stage1(model, source)
        return _named(model, "head.edges.", "head.relation.")
    if isinstance(model, GTLENet) and isinstance(source, ExpressionEncoder):
        gtle_net.start_from_encoder(model, source)
        return _named(model, "features.", "classifier.")
    kinds = read_checkpoint(path).model, type(model).__name__
    if type(source) is not type(model):
        raise ValueError(f"{path} holds a {kinds[0]}, from which a {kinds[1]} cannot start")
    if source.aus != model.aus and len(source.aus) == len(model.aus):
        raise ValueError(
            f"{path} is for {', '.join(source.aus.names)}, the model for as many others: "
            f"{', '.join(model.aus.names)}"
        )
    for option in ("backbone", "channels", "dims"):
        ours, theirs = (getattr(m.config, option, None) for m in (model, source))
        if option == "backbone":
            ours, theirs = architecture(str(ours)), architecture(str(theirs))
        if ours != theirs:
            raise ValueError(f"{path} has {option} {theirs}, the model {ours}: nothing would fit")
    return _take(model, source)


def _named(model: nn.Module, *prefixes: str) -> list[str]:
    return [name for name in model.state_dict() if name.startswith(prefixes)]


def _take(model: nn.Module, source: nn.Module) -> list[str]:
    ours, theirs = model.state_dict(), source.state_dict()
    fitting = {
        name: theirs[name]
        for name, value in ours.items()
        if name in theirs and theirs[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return [name for name in ours if name not in fitting]
