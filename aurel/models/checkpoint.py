"""Models on disk: the weights, and all that is needed to build the model they belong to."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.files import atomic_path
from aurel.models.registry import config_dict, info_of, make_config, model_info

FORMAT = 1
_PRIMITIVE = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Args:
        model: registered name of the model.
        config: its options, primitive types only.
        aus: the AUs of its outputs.
        state_dict: its parameters and buffers.
        metadata: whatever else was saved with it (fold, scores, ...).
    """

    model: str
    config: dict[str, Any]
    aus: AUSet
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any]


def describe(model: nn.Module) -> dict[str, Any]:
    """Return what identifies `model` in a file: {"format", "model", "config", "aus"}.

    Primitive types only, so that `torch.load(weights_only=True)` reads it. A training framework's
    checkpoint that stores this under the key "aurel", and the model's state dict with the prefix
    "model.", is read by `load_model` too.
    """
    return {
        "format": FORMAT,
        "model": info_of(model).name,
        "config": config_dict(model.config),
        "aus": model.aus.to_dict(),  # type: ignore[operator, union-attr]
    }


def save_model(model: nn.Module, path: str | Path, **metadata: Any) -> None:
    """Write a registered model to `path`; the file is complete or not there.

    Args:
        model: made by `create_model`.
        path: its folder is made where there is none.
        **metadata: numbers, strings, None, tensors, and lists or dicts of them.

    Raises:
        ValueError: a metadata value is of another type, or the model is not registered.
    """
    _check_metadata(metadata, "metadata")
    content = {
        "aurel": describe(model),
        "state_dict": model.state_dict(),
        "metadata": metadata,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of `save_model`, or a training checkpoint that holds `describe(model)`.

    Raises:
        ValueError: the file needs more than `weights_only=True` allows, or is no such checkpoint.
    """
    content = load_weights_only(path)
    about = content.get("aurel")
    if not isinstance(about, Mapping) or "state_dict" not in content:
        raise ValueError(
            f"{path} is not a checkpoint of aurel: it holds {_some(content)}; weights released by "
            "a paper's authors are read by load_author_checkpoint"
        )
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {about.get('format')}, this version of aurel reads format {FORMAT}"
        )
    state: dict[str, Tensor] = content["state_dict"]
    if any(key.startswith("model.") for key in state):
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return Checkpoint(
        model=about["model"],
        config=about["config"],
        aus=AUSet.from_dict(about["aus"]),
        state_dict=state,
        metadata=content.get("metadata", {}),
    )


def load_model(path: str | Path) -> Any:
    """Build the model that a file describes and load its weights; on the CPU, in eval mode.

    Args:
        path: written by `save_model` or by training.

    Returns:
        The model.

    Raises:
        ValueError: not such a file, or the weights do not fit the model it names.
    """
    checkpoint = read_checkpoint(path)
    info = model_info(checkpoint.model)
    config = make_config(info, checkpoint.aus, checkpoint.config)
    model = info.model(config, checkpoint.aus, pretrained=False)
    _load(model, checkpoint, path)
    return model.eval()


def load_weights_only(path: str | Path) -> dict[str, Any]:
    """`torch.load(weights_only=True)` onto the CPU, with a refusal that says why.

    Raises:
        ValueError: the file is no dict, no torch file, or would have to run code to be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read with torch.load(weights_only=True), and nothing else is tried, "
            f"because a pickle can run any code: {error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted a dict")
    return content


def _load(model: nn.Module, checkpoint: Checkpoint, path: str | Path) -> None:
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit {checkpoint.model}: {error}") from error


def _check_metadata(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_metadata(key, f"a key of {where}")
            _check_metadata(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_metadata(item, f"{where}[{index}]")
    elif not (type(value) in _PRIMITIVE or isinstance(value, Tensor)):
        raise ValueError(
            f"{where} is a {type(value).__module__}.{type(value).__name__}; only str, int, float, "
            "bool, None, tensors, lists, tuples and dicts are read back safely"
        )


def _some(content: Mapping[str, Any]) -> str:
    keys = [str(key) for key in content]
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
