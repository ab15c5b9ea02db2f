"""Tensors as the arrays that kernels take: flat, contiguous, float32 or float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.winners import winner_dtype

Array = np.ndarray[Any, Any]

_NO_BOOL = np.empty(0, np.bool_)
_HALVES = (torch.float16, torch.bfloat16)


def wide(tensor: Tensor) -> Tensor:
    """Return `tensor` contiguous, without gradient, halves as float32."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype in _HALVES:
        tensor = tensor.float()
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def flat(tensor: Tensor) -> Array:
    """Return the elements of a tensor as a flat array; for a contiguous one, of the same memory."""
    if tensor.requires_grad or tensor.dtype in _HALVES or not tensor.is_contiguous():
        tensor = wide(tensor)
    array: Array = tensor.numpy().reshape(-1)
    return array


def flags(mask: Tensor | None) -> Array:
    """Return a bool mask as a flat array, or an empty one for None."""
    return _NO_BOOL if mask is None else flat(mask)


def result(like: Tensor, *shape: int) -> Tensor:
    """Return an empty tensor to compute in: the dtype of `like`, halves as float32."""
    if like.dtype in _HALVES:
        return torch.empty(shape, dtype=torch.float32)
    return like.new_empty(shape)  # a third less host time than torch.empty


def indices(*shape: int) -> tuple[Tensor, Array]:
    """Return an empty int64 tensor and its flat array, in a third of the time of `torch.empty`."""
    array: Array = np.empty(shape, np.int64)
    return torch.from_numpy(array), array.reshape(-1)


def narrow(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a result in the dtype of `like`."""
    return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)


def check_winner(winner: Tensor, grad: Tensor) -> None:
    """Raise ValueError unless there is a winner for each element of `grad`."""
    if winner.shape != grad.shape:
        raise ValueError(
            f"winner must have shape {tuple(grad.shape)}, got {tuple(winner.shape)}; "
            "a gradient needs keep_winner=True"
        )


def winners(nodes: int, *shape: int) -> Tensor:
    """Return an empty tensor for numbers of `nodes` nodes, in the smallest dtype for them."""
    return torch.empty(shape, dtype=winner_dtype(nodes))
