"""Checks that all ops share: errors name the argument, the valid values and the value it got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_tensor(name: str, tensor: Any) -> None:
    """Raise TypeError unless `tensor` is a tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")


def check_bool(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_integer(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is an int or a symbolic int; a bool is neither."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a real number."""
    numbers = (int, float, torch.SymInt, torch.SymFloat)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_shape(name: str, tensor: Tensor, layout: str, **sizes: int) -> None:
    """Raise TypeError unless `tensor` is a tensor, and ValueError unless it has this shape.

    Args:
        name: the argument's name, for the message.
        tensor: the argument.
        layout: names of the dimensions, as in "B N C".
        sizes: the dimensions whose size is known, as in ``B=4, N=12``.
    """
    check_tensor(name, tensor)
    names = layout.split()
    shape = tensor.shape
    fits = len(shape) == len(names)
    if fits and sizes:
        for dim, size in zip(names, shape, strict=True):
            if sizes.get(dim, size) != size:
                fits = False
    if not fits:
        expected = ", ".join(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in names)
        raise ValueError(f"{name} must have shape ({expected}), got {tuple(tensor.shape)}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless `tensor` holds floating-point numbers."""
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tensor.dtype}")


def check_input(
    name: str, tensor: Tensor, layout: str, like: Tensor | None = None, **sizes: int
) -> None:
    """Raise an error unless `tensor` has this shape, is floating point, and on `like`'s device.

    Args and errors are those of `check_shape`.
    """
    check_shape(name, tensor, layout, **sizes)
    if not tensor.is_floating_point():
        check_floating(name, tensor)
    if like is not None:
        check_device(name, tensor, like)


def check_mask(mask: Tensor | None, x: Tensor, name: str = "mask") -> None:
    """Raise ValueError unless `mask` is None or a bool (B, N) tensor for `x` (B, N, ...)."""
    if mask is None:
        return
    check_shape(name, mask, "B N", B=x.shape[0], N=x.shape[1])
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be bool (True where the node exists), got {mask.dtype}")
    check_device(name, mask, x)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise ValueError unless `tensor` lies on the device of `x`."""
    if not (tensor.is_cpu and x.is_cpu) and tensor.device != x.device:
        raise ValueError(f"{name} must be on {x.device}, got {tensor.device}")


def check_k(k: int, nodes: int, loop: bool = True, dilation: int = 1) -> None:
    """Raise an error unless a node has `k * dilation` candidates among `nodes` nodes.

    Raises:
        TypeError: an argument is not an int.
        ValueError: there are too few candidates; without `loop` the node itself is not one.
    """
    check_integer("k", k)
    check_integer("dilation", dilation)
    candidates = nodes if loop else nodes - 1
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more, got {dilation}")
    if k < 1 or k * dilation > candidates:
        meaning = "the number of nodes" if loop else f"the {nodes} nodes less the node itself"
        product = "k" if dilation == 1 else "k * dilation"
        value = f"{k}" if dilation == 1 else f"{k} * {dilation}"
        raise ValueError(f"{product} must be in 1..{candidates} ({meaning}), got {value}")


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their common dtype (autocast can mix float32 and half precision)."""
    dtype = tensors[0].dtype
    for tensor in tensors:
        if tensor.dtype != dtype:
            break
    else:
        return tensors
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
