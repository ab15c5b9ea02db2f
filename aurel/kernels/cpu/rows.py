"""Rows of flat arrays, as views: LLVM sees that an index into one is not negative."""

from __future__ import annotations

from aurel.kernels.cpu.compiler import kernel


@kernel
def row_part(x, row, channels, first, width):
    """Return `width` places of a row of x, from `first` on; rows are `channels` long."""
    start = row * channels + first
    return x[start : start + width]
