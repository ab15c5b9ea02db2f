"""Whether the Triton kernels can serve a call of any op."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

OLDEST = (3, 4)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def triton_obstacle(
    tensors: tuple[Tensor, ...], sizes: Callable[[], str | None] | None, float64: bool = False
) -> str | None:
    """Return why the Triton kernels cannot serve a call, or None if they can.

    Args:
        tensors: floating-point tensors of the call, on one device.
        sizes: returns the size that is not served, or None; None for an op without kernels.
        float64: whether the kernels of the op serve float64, too.
    """
    if sizes is None:
        return "there is no Triton kernel for it"
    for tensor in tensors:
        if tensor.dtype not in DTYPES and not (float64 and tensor.dtype == torch.float64):
            return f"the kernels serve float32, float16 and bfloat16, got {tensor.dtype}"
    return environment_obstacle(tensors[0].device) or sizes()


def environment_obstacle(device: torch.device) -> str | None:
    """Return the reason for which kernels cannot run on a device in this process, or None.

    Triton is imported only where its kernels could run: on "cuda" (AMD's GPUs included), or on
    "cpu" in Triton's interpreter, which TRITON_INTERPRET=1 asks for.
    """
    # On a CPU the answer depends on the environment, whose look-up is slow.
    if device.type == "cpu" or torch.compiler.is_compiling():
        return _environment_obstacle(device)
    return _cached_obstacle(device)


@cache
def _cached_obstacle(device: torch.device) -> str | None:
    return _environment_obstacle(device)


def _environment_obstacle(device: torch.device) -> str | None:
    # torch.compile traces this function, so it keeps to Python that can be traced.
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET", "0") in ("", "0"):
        return (
            "the tensors are on a CPU; the kernels need a GPU, or Triton's interpreter "
            "(TRITON_INTERPRET=1 before the start of Python)"
        )
    if device.type not in ("cpu", "cuda"):
        return f"the kernels need a CUDA or ROCm device, got {device}"
    try:
        import triton
    except ImportError as error:
        return f"Triton cannot be imported: {error}"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
        return f"the kernels need Triton {OLDEST[0]}.{OLDEST[1]}, got {triton.__version__}"
    from aurel.kernels.triton.launch import INTERPRETED

    if device.type == "cpu" and not INTERPRETED:
        return "Triton was imported before TRITON_INTERPRET was set"
    if device.type == "cuda" and torch.cuda.is_available() and torch.version.hip is None:
        major = torch.cuda.get_device_properties(device).major
        if major < 8:
            return f"the kernels need compute capability 8.0 at least, got {major}"
    return None
