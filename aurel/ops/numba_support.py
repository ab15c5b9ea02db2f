"""Whether the CPU kernels, which numba compiles, can serve a call of any op."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# The reason why there are no CPU kernels in this environment, or None.
MISSING = None if find_spec("numba") else "numba is not installed: pip install 'aurel-au[cpu]'"


def numba_obstacle(tensors: tuple[Tensor, ...]) -> str | None:
    """Return why the CPU kernels cannot serve a call on these tensors, or None if they can."""
    for tensor in tensors:
        if not tensor.is_cpu:
            return f"the CPU kernels need tensors on a CPU, got {tensor.device}"
        if tensor.dtype not in DTYPES:
            return f"the CPU kernels serve float32, float64 and halves, got {tensor.dtype}"
    return MISSING
