"""Measure the best rates of this machine: bytes moved and float32 operations per second.

No implementation of an op is faster than its floor: the time for the bytes that must be read or
written, each once, at the rate of their memory, or the time for its operations at their rate,
whichever is longer.

On a GPU, steps are repeated on the same tensors, so that tensors that fit into the L2 cache stay
there: a floor whose bytes fit uses the rate of L2, any other the rate of memory. Operations are
those of products of float32 matrices, computed in float32, or on tensor cores as three tf32
products, which is about as accurate; the faster of the two rates is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from measure import Step, Timer

REPEATS = 7
L2_SHARE = 0.5  # usable part of the cache


@dataclass(frozen=True)
class Floor:
    """The least work of an op.

    Args:
        bytes: bytes read or written, each tensor once.
        operations: floating-point operations; a multiply-add is two.
    """

    bytes: float
    operations: float = 0.0


@dataclass(frozen=True)
class Ceilings:
    """Rates of a machine, per second.

    Args:
        bytes: of memory, read plus written.
        operations: of a float32 matrix product.
        tensor_operations: of a product as three tf32 ones on tensor cores; 0 without them.
        cache_bytes: of the L2 cache, read plus written; 0 where it is not measured.
        cache_size: bytes that stay in the L2 cache.
    """

    bytes: float
    operations: float
    tensor_operations: float = 0.0
    cache_bytes: float = 0.0
    cache_size: float = 0.0

    def level(self, floor: Floor) -> str:
        """Return the memory of the floor: "L2" or "memory"."""
        return "L2" if 0 < floor.bytes <= self.cache_size else "memory"

    def milliseconds(self, floor: Floor) -> float:
        """Return the least time that `floor` takes."""
        rate = self.cache_bytes if self.level(floor) == "L2" else self.bytes
        moving = floor.bytes / rate
        computing = floor.operations / max(self.operations, self.tensor_operations)
        return 1e3 * max(moving, computing)


def measure_ceilings(timer: Timer) -> Ceilings:
    """Return the best rates of several copies and products of large matrices."""
    if timer.device.type != "cuda":
        return Ceilings(copy_rate(timer, 2**25), product_rate(timer, 1024))
    size = L2_SHARE * torch.cuda.get_device_properties(timer.device).L2_cache_size
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        tensor_operations = product_rate(timer, 8192) / 3
        torch.backends.cuda.matmul.allow_tf32 = False
        operations = product_rate(timer, 8192)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    # Source and target of the copy are in the cache together.
    cache = copy_rate(timer, int(size / 2 / 4))
    return Ceilings(copy_rate(timer, 2**28), operations, tensor_operations, cache, size)


def copy_rate(timer: Timer, elements: int) -> float:
    """Return the bytes per second, read plus written, of a copy of float32 numbers."""
    source = torch.randn(elements, device=timer.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(timer, lambda: target.copy_(source))


def product_rate(timer: Timer, side: int) -> float:
    """Return the operations per second of a product of two square float32 matrices."""
    matrix = torch.randn(side, side, device=timer.device)
    product = torch.empty_like(matrix)
    return 2 * side**3 / best(timer, lambda: torch.mm(matrix, matrix, out=product))


def best(timer: Timer, step: Step) -> float:
    prepared = timer.prepare(step)
    return min(timer.seconds(prepared) for _ in range(REPEATS))
