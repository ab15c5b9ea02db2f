"""Weights that the authors of a paper released, loaded into the model of that paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from aurel.backbones.build import Backbone, build_network
from aurel.models.checkpoint import SAFETENSORS, load_weights_only, read_safetensors
from aurel.models.registry import info_of
from aurel.models.relation_head import HEAD

Model = TypeVar("Model", bound=nn.Module)


def load_author_checkpoint(
    model: Model, path_or_state_dict: str | Path | Mapping[str, object]
) -> Model:
    """Load released weights into `model`, all of them or none, and return the model.

    The model then also follows the authors' code where it departs from the paper: the facial graph
    of ME-GraphAU keeps every node that ties with the K-th best (`ties="all"`). The file does not
    hold the number of neighbors that the weights were trained with; it is the model's `k`.

    Args:
        model: made by `create_model` with the backbone, the number of AUs and the order of AUs that
            the weights were trained with; or the backbone of any model (``model.backbone``), for
            weights released for the backbone alone, of which tensors that it lacks are left out.
        path_or_state_dict: the authors' file, its content, or the state dict alone. A `module.`
            prefix (DataParallel) is removed; the optimizer's state is ignored.

    Returns:
        The same model.

    Raises:
        ValueError: no weights were released for this model; the file cannot be read with
            `torch.load(weights_only=True)`; or keys are missing, superfluous or of another shape:
            one message lists them all, and the model is unchanged.
    """
    if isinstance(model, Backbone):
        _load_backbone(model, path_or_state_dict)
        return model
    info = info_of(model)
    layout = info.author_layout
    if layout is None:
        raise ValueError(f"model must be one with released weights, got {info.name}")
    if (
        isinstance(path_or_state_dict, str | Path)
        and Path(path_or_state_dict).suffix == SAFETENSORS
    ):
        header, path_or_state_dict = read_safetensors(path_or_state_dict)
        layout.check_header(header, model)
    author = {
        key: value
        for key, value in _state_dict(path_or_state_dict).items()
        if not key.endswith(layout.ignored) and not key.startswith(layout.other_heads)
    }
    _check(author, layout.shapes(model), info.name)
    with torch.no_grad():
        own = {key: value for key, value in model.state_dict().items() if key.startswith(HEAD)}
        model.load_state_dict({**own, **layout.convert(author, model)})
    layout.adopt(model)
    return model


def _load_backbone(model: Backbone, source: str | Path | Mapping[str, object]) -> None:
    name = model.net.pretrained_cfg["architecture"]
    try:
        complete = build_network(name, checkpoint=source).state_dict()
        model.net.load_state_dict({key: complete[key] for key in model.net.state_dict()})
    except RuntimeError as error:
        raise ValueError(f"the weights must fit this {name}, got others: {error}") from error


def _state_dict(source: str | Path | Mapping[str, object]) -> dict[str, Tensor]:
    content = load_weights_only(source) if isinstance(source, str | Path) else source
    inner = content.get("state_dict", content)
    if not isinstance(inner, Mapping) or not inner:
        kind = type(inner).__name__
        raise ValueError(
            "path_or_state_dict must hold a state dict, at the top or under 'state_dict', got "
            f"{kind if inner else f'an empty {kind}'}"
        )
    other = [str(key) for key, value in inner.items() if not isinstance(value, Tensor)]
    if other:
        raise ValueError(f"a state dict must hold tensors only, got others: {', '.join(other)}")
    return {key.removeprefix("module."): value for key, value in inner.items()}


def _check(
    author: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    problems = [f"missing: {key} {shape}" for key, shape in expected.items() if key not in author]
    problems += [f"superfluous: {key}" for key in author if key not in expected]
    problems += [
        f"shape: {key} must be {shape}, got {tuple(author[key].shape)}"
        for key, shape in expected.items()
        if key in author and tuple(author[key].shape) != shape
    ]
    if problems:
        raise ValueError(
            f"the weights must fit this {name} (backbone, number of AUs and stage as released), "
            "got others:\n  " + "\n  ".join(problems)
        )
