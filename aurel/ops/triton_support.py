"""Whether the Triton kernels can serve a call: one answer for all ops."""

from __future__ import annotations

import os

import torch
from torch import Tensor

OLDEST = (3, 4)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def triton_obstacle(x: Tensor, *size_obstacles: str | None) -> str | None:
    """Return why the Triton kernels cannot serve a call, or None if they can.

    Args:
        x: a tensor of the call; all of them must pass.
        size_obstacles: what the functions of `aurel_kernels.sizes` say of the call's sizes.
    """
    if x.dtype not in DTYPES:
        return f"the kernels serve float32, float16 and bfloat16, got {x.dtype}"
    for obstacle in (environment_obstacle(x.device), *size_obstacles):
        if obstacle is not None:
            return obstacle
    return None


def environment_obstacle(device: torch.device) -> str | None:
    """Return what keeps kernels from running on a device in this process, if anything.

    Triton is imported only where its kernels could run: on "cuda" (AMD's GPUs included), or on
    "cpu" in Triton's interpreter, which TRITON_INTERPRET=1 asks for. (torch.compile traces this
    function, so it keeps to what can be traced.)
    """
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
    from aurel_kernels.launch import INTERPRETED

    if device.type == "cpu" and not INTERPRETED:
        return "Triton was imported before TRITON_INTERPRET was set"
    if device.type == "cuda" and torch.cuda.is_available() and torch.version.hip is None:
        major = torch.cuda.get_device_properties(device).major
        if major < 8:
            return f"the kernels need compute capability 8.0 at least, got {major}"
    return None
