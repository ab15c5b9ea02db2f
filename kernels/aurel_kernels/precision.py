"""How the kernels multiply float32 matrices, and how large a product a program can hold."""

from __future__ import annotations

import triton

from aurel_kernels.launch import INTERPRETED, target
from aurel_kernels.sizes import WHOLE_GRAPH


def product_precision() -> str:
    """Return the `input_precision` of products.

    NVIDIA's tensor cores reach the accuracy of float32 with three products of 19-bit numbers; AMD's
    take float32 as it is.
    """
    return "tf32x3" if INTERPRETED or target() == "cuda" else "ieee"


def whole_graph() -> int:
    """Return how many nodes a program can hold the weights of all pairs of.

    Hopper and Blackwell (9.0 and 10.x) multiply from shared memory, and AMD in one pass; others
    would run out of registers.
    """
    if INTERPRETED or target() != "cuda":
        return WHOLE_GRAPH
    architecture = triton.runtime.driver.active.get_current_target().arch
    return WHOLE_GRAPH if 90 <= architecture < 110 else WHOLE_GRAPH // 2
