"""The header of a checkpoint, which may come from a stranger: checked before a model is made."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from aurel.facs import AUSet
from aurel.models.registry import ModelInfo, make_config

MOST_NUMBERS = 2_000_000_000
_MOST_AUS = 512
_LARGEST = 10_000
_LARGEST_IMAGE = 4096
_LONGEST_TEXT = 200
_MOST_VALUES = 2000
_DEEPEST = 5
_LONGEST_MESSAGE = 2000

Reader = TypeVar("Reader", bound=Callable[..., Any])


def names_file(read: Reader) -> Reader:
    """Return the function `read(path, ...)` with every error of a bad file as a ValueError.

    Its message is one line that names the file. Errors of the system and of the installation
    (OSError, ImportError, MemoryError) pass.
    """

    @functools.wraps(read)
    def reader(path: str | Path, *args: Any, **options: Any) -> Any:
        try:
            return read(path, *args, **options)
        except (OSError, ImportError, MemoryError):
            raise
        except ValueError as error:
            if str(path) in (text := str(error)) and len(text) <= _LONGEST_MESSAGE:
                raise
            where = "" if text.startswith(str(path)) else f"{path}: "
            raise ValueError(f"{where}{text[:_LONGEST_MESSAGE]}") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
            raise ValueError(f"{path} cannot be read as a checkpoint of aurel: {reason}") from error

    return cast(Reader, reader)


def check_content(about: Mapping[str, Any], state: Any, metadata: Any) -> None:
    """Raise ValueError unless the parts of a file have their types and sizes.

    Args:
        about: the header, see `aurel.models.checkpoint.describe`.
        state: the tensors by name.
        metadata: further values by name.
    """
    for key, kind in (("model", str), ("config", Mapping), ("aus", Mapping)):
        if not isinstance(about.get(key), kind):
            found = type(about[key]).__name__ if key in about else "none"
            raise ValueError(f"{key} of its header must be a {kind.__name__.lower()}, got {found}")
    for key in ("model", "config", "aus", "trained_on", "preprocessing"):
        _check_plain(about.get(key), key)
    _check_aus(about["aus"])
    for name, tensor in _mapping(state, "state_dict").items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"state_dict must hold tensors, got {type(tensor).__name__} ({name})")
    _check_protocol(_mapping(metadata, "metadata"))


def check_model(
    info: ModelInfo,
    config: Mapping[str, Any],
    aus: AUSet,
    state: Mapping[str, Tensor],
    allow_hub: bool = False,
) -> None:
    """Raise ValueError unless the described model has the tensors of its file.

    The model is made on the meta device, without memory for its parameters, and no further than
    `MOST_NUMBERS` numbers or four times the tensors of the file.

    Args:
        info: the registry's entry of the model.
        config: its options.
        aus: its AUs.
        state: the tensors of the file.
        allow_hub: accept a backbone whose name makes timm read a description over the network or
            from another folder, such as "hf_hub:owner/model".
    """
    backbone = config.get("backbone")
    if isinstance(backbone, str) and not allow_hub and any(mark in backbone for mark in ":/\\"):
        raise ValueError(
            f"backbone must be a name of timm, got {backbone!r}, which is read over the network or "
            "from a folder; load_model(..., allow_hub=True) permits it"
        )
    with torch.device("meta"), _bounded(4 * len(state) + 2000):
        model = info.model(make_config(info, aus, config), aus, pretrained=False)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in {**expected, **found}:
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"the weights must fit {info.name}, which has {_described(expected, name)}, got "
                f"{_described(found, name)}"
            )


@contextmanager
def _bounded(most_tensors: int) -> Iterator[None]:
    """Raise ValueError where this thread makes modules of too many tensors or numbers."""
    thread = threading.get_ident()
    tensors = numbers = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal tensors, numbers
        if tensor is None or threading.get_ident() != thread:
            return
        tensors += 1
        numbers += math.prod(tensor.shape)
        if numbers > MOST_NUMBERS or tensors > most_tensors:
            raise ValueError(
                f"its model must have at most {MOST_NUMBERS} numbers, and about as many tensors as "
                f"the file, got {numbers} numbers in {tensors} tensors and more"
            )

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_plain(value: Any, where: str) -> None:
    """Raise unless a value is plain, and neither large, long nor deep."""
    left = [(value, 0)]
    seen = 0
    while left:
        item, depth = left.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise ValueError(
                f"{where} of its header must have at most {_MOST_VALUES} values, nested at most "
                f"{_DEEPEST} times"
            )
        if isinstance(item, Mapping):
            left += [(part, depth + 1) for pair in item.items() for part in pair]
            image = item.get("image_size")
            if isinstance(image, int) and not 1 <= image <= _LARGEST_IMAGE:
                raise ValueError(f"image_size must be in 1..{_LARGEST_IMAGE}, got {image}")
        elif isinstance(item, list | tuple):
            left += [(part, depth + 1) for part in item]
        else:
            _check_value(item, where)


def _check_value(value: Any, where: str) -> None:
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ValueError(
                f"{where} of its header must have texts of at most {_LONGEST_TEXT} characters, got "
                f"{len(value)}"
            )
    elif isinstance(value, int | float):
        if not abs(value) <= _LARGEST:
            shown = value if abs(value) < 1e30 else "a larger one"
            raise ValueError(
                f"{where} of its header must have numbers of at most {_LARGEST}, got {shown}"
            )
    elif value is not None:
        raise ValueError(
            f"{where} of its header must have texts and numbers, got {type(value).__name__}"
        )


def _check_aus(aus: Mapping[str, Any]) -> None:
    for key, kind in (("numbers", int), ("sides", str)):
        values = aus.get(key)
        if not isinstance(values, list | tuple) or any(type(value) is not kind for value in values):
            raise ValueError(f"{key} of its AUs must be a list of {kind.__name__}")
        if len(values) > _MOST_AUS:
            raise ValueError(f"its AUs must be at most {_MOST_AUS}, got {len(values)}")
    if not isinstance(aus.get("name"), str):
        raise ValueError("name of its AUs must be a str")


def _check_protocol(metadata: Mapping[str, Any]) -> None:
    """Raise unless the values that aurel reads from the metadata have their types."""
    for key in ("image_size", "resize"):
        size = metadata.get(key)
        if size is not None and not (type(size) is int and 1 <= size <= _LARGEST_IMAGE):
            shown = size if type(size) is int else type(size).__name__
            raise ValueError(f"{key} of its metadata must be in 1..{_LARGEST_IMAGE}, got {shown}")
    if "train_subjects" not in metadata:
        return
    for key in ("train_subjects", "validation_subjects"):
        people = metadata.get(key)
        if not isinstance(people, list) or any(type(name) is not str for name in people):
            raise ValueError(f"{key} of its metadata must be a list of str")
    if type(metadata.get("dataset")) is not str or "fold" not in metadata:
        raise ValueError("its metadata must have dataset and fold where it has train_subjects")


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or any(type(key) is not str for key in value):
        raise ValueError(f"{name} must be a dict with names as keys")
    return value


def _described(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return f"{name} of shape {shapes[name]}" if name in shapes else f"no {name}"
