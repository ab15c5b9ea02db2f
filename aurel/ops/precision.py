"""Precision of computations: blocks without autocast, and the dtype that ops compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_UNCHANGED = nullcontext()


def without_autocast(x: Tensor | str) -> AbstractContextManager[object]:
    """Return a context that turns autocast off on a device; the meta device has none.

    Args:
        x: a tensor on the device, or the type of the device.
    """
    device_type = x if isinstance(x, str) else x.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return _UNCHANGED
    return torch.autocast(device_type, enabled=False)


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the common dtype of tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
