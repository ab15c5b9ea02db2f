"""Starting a model from the weights of another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from aurel.backbones.build import architecture
from aurel.models.base import AUModel
from aurel.models.checkpoint import load_model
from aurel.models.registry import info_of


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
        raise ValueError(f"{path} does not fit the backbone {backbone}: {error}") from error


def start_from(model: AUModel, path: str | Path) -> list[str]:
    """Take over the weights in `path` as far as they belong into `model`.

    A model starts as its registration says from the models in `starts_from`. Any other pair must be
    the same kind of model; tensors of equal name and shape are taken, which for other AUs leaves
    out what depends on their number.

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
    info, source_name = info_of(model), info_of(source).name
    if source_name in info.starts_from:
        staging = info.starts_from[source_name]
        staging.inherit(model, source)
        return [name for name in model.state_dict() if name.startswith(staging.fresh)]
    if type(source) is not type(model):
        raise ValueError(
            f"{path} holds a {source_name}, from which a {type(model).__name__} cannot start"
        )
    if source.aus != model.aus and len(source.aus) == len(model.aus):
        raise ValueError(
            f"{path} is for {', '.join(source.aus.names)}, the model for as many others: "
            f"{', '.join(model.aus.names)}"
        )
    ours, theirs = (
        {**asdict(m.config), "backbone": architecture(m.config.backbone)} for m in (model, source)
    )
    for option in ("backbone", *model.config.width_options):
        if ours[option] != theirs[option]:
            raise ValueError(
                f"{path} has {option} {theirs[option]}, the model {ours[option]}: nothing would fit"
            )
    return _take(model, source)


def _take(model: AUModel, source: AUModel) -> list[str]:
    ours, theirs = model.state_dict(), source.state_dict()
    fitting = {
        name: theirs[name]
        for name, value in ours.items()
        if name in theirs and theirs[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return [name for name in ours if name not in fitting]
