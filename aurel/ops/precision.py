"""Precision of computations: blocks without autocast, and the dtype that ops compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_UNCHANGED = nullcontext()


def is_autocast(x: Tensor) -> bool:
    """Return whether autocast is on for the device of `x`; the meta device has none."""
    device_type = "cpu" if x.is_cpu else x.device.type  # a fifth of the host time
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context that turns autocast off on the device of `x`; the meta device has none."""
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else _UNCHANGED


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a dtype; one that has it is returned without the host time of `to`."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the common dtype of tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
