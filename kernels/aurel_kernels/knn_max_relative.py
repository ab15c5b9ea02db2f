"""KNN graph and max-relative aggregation: max over the K nearest j of x_j - x_i, in one launch.

Forward: `knn_aggregate` with "max"; max_j x_j - x_i is max_j (x_j - x_i) to the bit, since rounding
is monotone. Saved: the neighbours and the winning slot, one byte a channel.

Backward: grad_n = -grad_n + sum of grad_i over the i whose winner is n, channel by channel:
`neighbor_aggregate.backward` with `relative`. It is deterministic and needs no atomics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aurel_kernels import neighbor_aggregate
from aurel_kernels.knn_aggregate import knn_aggregate


def forward(
    x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None, keep_winner: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the maxima (B, N, C), the neighbours (B, N, K) and the winning slots (B, N, C)."""
    return knn_aggregate(x, x, k, metric, loop, mask, "max", keep_winner)


def backward(grad: Tensor, neighbors: Tensor, winner: Tensor) -> Tensor:
    """Return the gradient of x, (B, N, C)."""
    return neighbor_aggregate.backward(grad, neighbors, winner, "max", relative=True)


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the tables of both directions, on CPU tensors, to be compiled."""
    for nodes, channels, k in ((12, 512, 4), (41, 40, 9), (196, 192, 9), (196, 40, 33)):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.empty(2, nodes, channels, dtype=dtype)
            yield partial(forward, x, k, "l2", True, None)
    for nodes, channels in ((41, 512), (300, 40)):
        grad = torch.empty(2, nodes, channels)
        neighbors = torch.zeros(2, nodes, 9, dtype=torch.int64)
        winner = torch.empty(grad.shape, dtype=torch.uint8)
        yield partial(backward, grad, neighbors, winner)
