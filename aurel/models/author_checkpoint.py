"""Weights that the authors of a paper released, loaded into the model of that paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from aurel.backbones.build import Backbone, build_network
from aurel.models.checkpoint import load_weights_only
from aurel.models.registry import info_of

Model = TypeVar("Model", bound=nn.Module)
HEAD = "relation_head."


def load_author_checkpoint(
    model: Model, path_or_state_dict: str | Path | Mapping[str, object]
) -> Model:
    """Load released weights into `model`, every one of them or none.

    The model then also follows the authors' code where it departs from the paper: the facial graph
    of ME-GraphAU keeps every node that ties with the K-th best (`ties="all"`). How many
    neighbours the weights were trained with is not in the file; it is the model's `k`.

    Args:
        model: made by `create_model` with the backbone, the number of AUs and the order of AUs that
            the weights were trained with; or the backbone of any model (``model.backbone``), for
            weights released for it alone. What it does not have of these is left out.
        path_or_state_dict: the authors' file, its content, or the bare state dict. A `module.`
            prefix (DataParallel) is taken off; the optimizer's state is ignored.

    Returns:
        The same model.

    Raises:
        ValueError: nothing was released for this model; the file cannot be read with
            `torch.load(weights_only=True)`; or keys are missing, superfluous or of another shape:
            one message lists them all, and the model is unchanged.
    """
    if isinstance(model, Backbone):
        _load_backbone(model, path_or_state_dict)
        return model
    info = info_of(model)
    layout = info.author_layout
    if layout is None:
        raise ValueError(f"the authors of {info.name} released no weights")
    author = _state_dict(path_or_state_dict)
    author = {key: value for key, value in author.items() if not key.endswith(layout.ignored)}
    _check(author, layout.shapes(model), info.name)
    with torch.no_grad():
        own = {key: value for key, value in model.state_dict().items() if key.startswith(HEAD)}
        model.load_state_dict({**own, **layout.convert(author, model)})
    layout.adopt(model)
    return model


def _load_backbone(model: Backbone, source: str | Path | Mapping[str, object]) -> None:
    name = model.net.pretrained_cfg["architecture"]
    try:
        whole = build_network(name, checkpoint=source).state_dict()
        model.net.load_state_dict({key: whole[key] for key in model.net.state_dict()})
    except RuntimeError as error:
        raise ValueError(f"these weights are not of this {name}: {error}") from error


def _state_dict(source: str | Path | Mapping[str, object]) -> dict[str, Tensor]:
    content = load_weights_only(source) if isinstance(source, str | Path) else source
    inner = content.get("state_dict", content)
    if not isinstance(inner, Mapping) or not inner:
        raise ValueError(f"wanted a state dict or a dict with 'state_dict', got {type(inner)}")
    other = [key for key, value in inner.items() if not isinstance(value, Tensor)]
    if other:
        raise ValueError(f"a state dict holds tensors only; these are none: {', '.join(other)}")
    return {key.removeprefix("module."): value for key, value in inner.items()}


def _check(author: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], name: str) -> None:
    problems = [f"missing: {key} {shape}" for key, shape in wanted.items() if key not in author]
    problems += [f"superfluous: {key}" for key in author if key not in wanted]
    problems += [
        f"shape: {key} is {tuple(author[key].shape)}, wanted {shape}"
        for key, shape in wanted.items()
        if key in author and tuple(author[key].shape) != shape
    ]
    if problems:
        raise ValueError(
            f"these weights are not of this {name} (backbone, number of AUs and stage must be "
            "those of the release):\n  " + "\n  ".join(problems)
        )
