"""KNN graph and max-relative aggregation: max over the K nearest j of s_j - x_i.

Forward: `knn_aggregate` with "max"; max_j s_j - x_i is max_j (s_j - x_i) to the bit, since rounding
is monotone. Saved: the neighbors and the winning nodes, one byte a channel up to 256 sources.

Backward: s_j gets the sum of grad_i over the i whose winner is j, channel by channel, as in
`neighbor_aggregate`, and x_i gets -grad_i. It is deterministic and needs no atomics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aurel.kernels.triton.knn_aggregate import knn_aggregate
from aurel.kernels.triton.knn_graph import example
from aurel.kernels.triton.knn_problem import problem_of
from aurel.kernels.triton.scatter import scatter
from aurel.kernels.winners import winner_dtype


def forward(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
    keep_winner: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the maxima (B, N, C), the neighbors (B, N, K) and the winning nodes (B, N, C).

    Args: as for `knn_graph.forward`, and keep_winner: without it, the last result is empty.
    """
    problem = problem_of(x, sources, bias, mask, source_mask, k, metric, loop, dilation)
    return knn_aggregate(problem, problem.sources, "max", keep_winner)


def backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, own: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, (B, N, C), and of the sources, (B, M, C), or empty if `own`.

    Args:
        grad: gradient of the maxima, (B, N, C).
        neighbors: second result of `forward`.
        winner: third result of `forward`.
        nodes: M.
        own: the sources are x itself; its gradient then holds both parts.
    """
    grad_sources = scatter(grad, neighbors, winner, nodes, "max", relative=own)
    if own:
        return grad_sources, grad.new_empty(0)
    return -grad.masked_fill(neighbors[..., :1] < 0, 0), grad_sources


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans of both directions, on CPU tensors, to be compiled."""
    half = torch.bfloat16
    for arguments in (
        example(12, 512, 4, "l2"),
        example(41, 512, 9, "l2"),
        example(41, 65, 9, "l2", half, masked=True, loop=False),
        example(64, 40, 16, "cosine", sources=17, biased=True, masked=True, dilation=2),
        example(784, 192, 12, "l2"),
        example(3136, 96, 9, "l2", half),
    ):
        yield partial(forward, *arguments, keep_winner=True)
    for nodes, channels, k in ((12, 512, 4), (41, 512, 9), (300, 65, 9)):
        grad = torch.empty(2, nodes, channels)
        neighbors = torch.zeros(2, nodes, k, dtype=torch.int64)
        winner = torch.empty(grad.shape, dtype=winner_dtype(nodes))
        yield partial(backward, grad, neighbors, winner, nodes, True)
    yield partial(backward, grad, neighbors, winner, 400, False)
