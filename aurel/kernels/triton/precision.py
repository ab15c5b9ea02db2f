"""How the kernels multiply float32 matrices, and how large a product a program can hold."""

from __future__ import annotations

from aurel.kernels.triton.launch import INTERPRETED, current_target, target
from aurel.kernels.triton.sizes import WHOLE_GRAPH


def product_precision() -> str:
    """Return the `input_precision` of products.

    NVIDIA's tensor cores reach the accuracy of float32 with three products of 19-bit numbers; AMD's
    take float32 as it is.
    """
    return "tf32x3" if INTERPRETED or target() == "cuda" else "ieee"


def wide_products() -> bool:
    """Return whether tensor cores read matrices from shared memory: on Hopper and Blackwell.

    Others hold both matrices, and the parts that "tf32x3" splits them into, in registers, of which
    there are too few for tiles of 64 rows and columns.
    """
    if INTERPRETED:
        return True
    current = current_target()
    return current.backend == "cuda" and 90 <= current.arch < 110


def whole_graph() -> int:
    """Return how many nodes a program can hold the attention weights of."""
    return WHOLE_GRAPH if wide_products() or target() != "cuda" else WHOLE_GRAPH // 2
