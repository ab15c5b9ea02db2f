"""Gather and reduce over given neighbor lists, forward (`gather`) and backward (`scatter`).

Forward: out_i = max, mean or sum over slots s of x[neighbors[i, s]]; a slot out of range is
empty, and a row without neighbors gets 0. For max the winning node is saved; nothing else is.

x (B, M, C), grad (B, N, C); neighbors (B, N, K) int64. Sizes: see `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aurel.kernels.triton.gather import gather
from aurel.kernels.triton.scatter import scatter
from aurel.kernels.winners import winner_dtype


def forward(x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool) -> tuple[Tensor, Tensor]:
    """Return the reduction, (B, N, C), and the nodes that attained the maxima.

    Args:
        x: node features, (B, M, C), float32, float16 or bfloat16.
        neighbors: (B, N, K) int64; indices outside 0..M-1 are empty slots.
        reduce: "max", "mean" or "sum".
        keep_winner: return the nodes, (B, N, C); they are empty otherwise.
    """
    keep_winner = keep_winner and reduce == "max"
    return gather(x.contiguous(), neighbors.contiguous(), reduce, keep_winner)


def backward(grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, reduce: str) -> Tensor:
    """Return the gradient of x, (B, M, C), in the dtype of `grad`; see `scatter.scatter`."""
    return scatter(grad, neighbors, winner, nodes, reduce)


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans, on CPU tensors, to be compiled."""
    sizes = ((12, 12, 512, 4), (41, 65, 40, 9), (100, 20, 40, 9), (300, 300, 192, 9))
    for nodes, sources, channels, k in sizes:
        for reduce, dtype in (("max", torch.float32), ("mean", torch.bfloat16)):
            x = torch.empty(2, sources, channels, dtype=dtype)
            grad = torch.empty(2, nodes, channels, dtype=dtype)
            neighbors = torch.zeros(2, nodes, k, dtype=torch.int64)
            winner = torch.empty(grad.shape, dtype=winner_dtype(sources))
            yield partial(forward, x, neighbors, reduce, True)
            yield partial(backward, grad, neighbors, winner, sources, reduce)
