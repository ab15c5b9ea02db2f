"""The one door that every kernel is launched through: a check can compile instead of run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl

Compiled = tuple[str, dict[str, Any], Any]

# Triton decides at its own import, by TRITON_INTERPRET, whether kernels run in its interpreter.
INTERPRETED = not isinstance(tl.sum, triton.JITFunction)

_record: list[Compiled] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Run `kernel` over `grid`, on the device of its first tensor.

    Inside `compile_only`, compile it for the active target instead.
    """
    if 0 in grid:
        return
    if "maxnreg" in meta and not INTERPRETED and target() != "cuda":
        del meta["maxnreg"]  # an option of NVIDIA's assembler
    if _record is not None:
        _record.append((kernel.__name__, meta, kernel.warmup(*args, grid=grid, **meta)))
        return
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **meta)


def target() -> str:
    """Return what kernels are compiled for: "cuda" or "hip"."""
    return triton.runtime.driver.active.get_current_target().backend


@contextmanager
def compile_only() -> Iterator[list[Compiled]]:
    """Collect (kernel name, launch options, compiled kernel) of every launch instead of running."""
    global _record
    previous, _record = _record, []
    try:
        yield _record
    finally:
        _record = previous
