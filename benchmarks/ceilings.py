"""What this machine can do at best, measured: bytes moved and float32 operations a second.

No implementation of an op is faster than its floor: the bytes that must be read or written, each
once, over the first ceiling, or its operations over the second, whichever takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from measure import Step, Timer

REPEATS = 7


@dataclass(frozen=True)
class Floor:
    """What an op cannot do without.

    Args:
        bytes: read or written, each tensor once.
        operations: floating-point, a multiply-add as two.
    """

    bytes: float
    operations: float = 0.0


@dataclass(frozen=True)
class Ceilings:
    """Rates of a machine, a second."""

    bytes: float
    operations: float

    def milliseconds(self, floor: Floor) -> float:
        """Return the least time that `floor` takes."""
        return 1e3 * max(floor.bytes / self.bytes, floor.operations / self.operations)


def measure_ceilings(timer: Timer) -> Ceilings:
    """Copy a large tensor and multiply two large matrices; take the best of several runs."""
    on_gpu = timer.device.type == "cuda"
    source = torch.ones(2**28 if on_gpu else 2**25, device=timer.device)
    target = torch.empty_like(source)
    side = 8192 if on_gpu else 1024
    matrix = torch.randn(side, side, device=timer.device)
    product = torch.empty_like(matrix)

    def best(step: Step) -> float:
        return min(timer.seconds(step) for _ in range(REPEATS))

    copy = best(lambda: target.copy_(source))
    multiply = best(lambda: torch.mm(matrix, matrix, out=product))
    return Ceilings(2 * source.nbytes / copy, 2 * side**3 / multiply)
