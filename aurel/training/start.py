"""Initialization of a model from the weights of another."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from aurel.backbones.build import architecture
from aurel.models.base import AUModel
from aurel.models.checkpoint import load_model
from aurel.models.registry import info_of
from aurel.models.relation_head import HEAD

_log = logging.getLogger("aurel")


def initial_checkpoint(pattern: str, fold: int | None) -> Path:
    """Return the checkpoint that a run starts from.

    A run that chose no best epoch has only a ``last.ckpt``: where ``best.ckpt`` is missing, this
    file beside it is taken, and a line says so.

    Args:
        pattern: path, in which "{fold}" stands for the fold.
        fold: the fold of the run.

    Raises:
        FileNotFoundError: there is neither.
    """
    file = Path(pattern.replace("{fold}", str(fold)))
    last = file.with_name("last.ckpt")
    if file.is_file():
        return file
    if file.name == "best.ckpt" and last.is_file():
        _log.warning("model.init_from: %s is missing, %s is taken", file, last)
        return last
    raise FileNotFoundError(f"model.init_from: there is no checkpoint {file}")


def load_backbone_weights(model: AUModel, path: str | Path) -> None:
    """Load a file of backbone weights, as `build_backbone(checkpoint=...)` reads it.

    Args:
        model: made by `create_model`.
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the weights do not fit the backbone.
    """
    try:
        model.load_backbone(path)
    except RuntimeError as error:
        backbone = model.config.backbone
        raise ValueError(
            f"{path} must fit the backbone {backbone}, got other weights: {error}"
        ) from error


def start_from(model: AUModel, path: str | Path) -> list[str]:
    """Copy the weights in `path` that fit `model`, and return the names of the other tensors.

    From a model in its `starts_from`, a model starts as its registration says. Otherwise both must
    be of the same kind, and tensors of equal name and shape are copied; for other AUs these are the
    tensors that do not depend on the number of AUs.

    Args:
        model: made by `create_model`.
        path: checkpoint of a trained model.

    Returns:
        Names of the tensors of `model` that keep their initial values.

    Raises:
        ValueError: the models are of different kinds, backbones or widths, or are for different
            AUs of equal number, whose weights have the same names and shapes.
    """
    source = load_model(path, allow_hub=":" in model.config.backbone)
    info, source_name = info_of(model), info_of(source).name
    if source_name in info.starts_from:
        staging = info.starts_from[source_name]
        staging.inherit(model, source)
        initial = (*staging.fresh, HEAD)
        return [name for name in model.state_dict() if name.startswith(initial)]
    if type(source) is not type(model):
        kinds = " or ".join((info.name, *info.starts_from))
        raise ValueError(f"{path} must hold a {kinds}, got a {source_name}")
    if source.aus != model.aus and len(source.aus) == len(model.aus):
        raise ValueError(
            f"{path} must be for the AUs of the model, {', '.join(model.aus.names)}, or for "
            f"another number of AUs, got {', '.join(source.aus.names)}"
        )
    expected, found = (
        {**asdict(m.config), "backbone": architecture(m.config.backbone)} for m in (model, source)
    )
    for option in ("backbone", *model.config.width_options):
        if found[option] != expected[option]:
            raise ValueError(
                f"{option} of {path} must be {expected[option]}, as in the model, got "
                f"{found[option]}"
            )
    return _copy_fitting(model, source)


def _copy_fitting(model: AUModel, source: AUModel) -> list[str]:
    state, available = model.state_dict(), source.state_dict()
    fitting = {
        name: available[name]
        for name, value in state.items()
        if name in available and available[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return [name for name in state if name not in fitting]
