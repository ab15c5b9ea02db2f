"""Checks that the ops share: a ValueError names the argument, what came and what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_shape(name: str, tensor: Tensor, layout: str, **sizes: int) -> None:
    """Raise ValueError unless `tensor` has the named dimensions.

    Args:
        name: the argument's name, for the message.
        tensor: the argument.
        layout: names of the dimensions, as in "B N C".
        sizes: the dimensions whose size is known, as in ``B=4, N=12``.
    """
    names = layout.split()
    fits = tensor.ndim == len(names) and all(
        dim not in sizes or size == sizes[dim]
        for dim, size in zip(names, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in names)
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(tensor.shape)}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless `tensor` holds floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tensor.dtype}")


def check_nodes(name: str, x: Tensor) -> None:
    """Raise ValueError unless `x` is a floating-point (B, N, C) tensor."""
    check_shape(name, x, "B N C")
    check_floating(name, x)


def check_mask(mask: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless `mask` is None or a bool (B, N) tensor beside `x` (B, N, ...)."""
    if mask is None:
        return
    check_shape("mask", mask, "B N", B=x.shape[0], N=x.shape[1])
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool (True where the node exists), got {mask.dtype}")
    check_device("mask", mask, x)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise ValueError unless `tensor` lies on the device of `x`."""
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on {x.device}, got {tensor.device}")


def check_k(k: int, nodes: int, loop: bool = True) -> None:
    """Raise ValueError unless a node has `k` candidates among `nodes` nodes (itself if `loop`)."""
    candidates = nodes if loop else nodes - 1
    if not 1 <= k <= candidates:
        meaning = "the number of nodes" if loop else f"the {nodes} nodes less the node itself"
        raise ValueError(f"k must be in 1..{candidates} ({meaning}), got {k}")


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their common dtype (autocast can mix float32 and half precision)."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
