"""Precision of computations: blocks without autocast, and the dtype that ops compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_UNCHANGED = nullcontext()


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context that turns autocast off on the device of `x`; the meta device has none."""
    device_type = x.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return _UNCHANGED
    return torch.autocast(device_type, enabled=False)


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the common dtype of tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
