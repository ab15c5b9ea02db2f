"""K-nearest-neighbor graphs of many dense graphs at once.

x (B, N, C) -> neighbors (B, N, K) int64, nearest first, ties to the lowest index, -1 for an empty
slot. Small graphs, and metrics other than l2, take the exact scores of all pairs (`knn_exact`);
l2 in graphs of more than WHOLE_GRAPH sources goes by candidates (`knn_candidates`). Both give the
same neighbors.

Nothing is differentiated, so nothing is saved: a choice has no gradient. Sizes: see `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aurel.kernels.triton.knn_candidates import candidate_neighbors
from aurel.kernels.triton.knn_exact import exact_neighbors
from aurel.kernels.triton.knn_problem import Problem, problem_of
from aurel.kernels.triton.sizes import WHOLE_GRAPH


def neighbors_of(problem: Problem) -> Tensor:
    """Return the neighbors, (B, N, K) int64."""
    neighbors = problem.empty_neighbors()
    if problem.setting.metric == "l2" and problem.setting.sources > WHOLE_GRAPH:
        candidate_neighbors(problem, neighbors)
    else:
        exact_neighbors(problem, neighbors)
    return neighbors


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
) -> Tensor:
    """Return the neighbors, (B, N, K) int64.

    Args:
        x: node features, (B, N, C), float32, float16 or bfloat16.
        sources: candidates, (B, M, C), or None for `x`.
        bias: (N, M) or (B, N, M), added to the scores, or None.
        mask: (B, N) bool, True where the node exists, or None.
        source_mask: (B, M) bool, True where the source exists, or None.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may be its own neighbor.
        dilation: 2 keeps every second of the k * 2 nearest, and so on.
    """
    return neighbors_of(problem_of(x, sources, bias, mask, source_mask, k, metric, loop, dilation))


def example(
    nodes: int,
    channels: int,
    k: int,
    metric: str,
    dtype: torch.dtype = torch.float32,
    sources: int | None = None,
    masked: bool = False,
    biased: bool = False,
    loop: bool = True,
    dilation: int = 1,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, int, str, bool, int]:
    """Return arguments of `forward`, on a CPU, to be compiled."""
    x = torch.empty(2, nodes, channels, dtype=dtype)
    other = None if sources is None else torch.empty(2, sources, channels, dtype=dtype)
    columns = nodes if sources is None else sources
    mask = torch.ones(2, nodes, dtype=torch.bool) if masked else None
    source_mask = torch.ones(2, columns, dtype=torch.bool) if masked and sources else None
    bias = torch.empty(2, nodes, columns) if biased else None
    return x, other, bias, mask, source_mask, k, metric, loop, dilation


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans, on CPU tensors, to be compiled."""
    half = torch.bfloat16
    yield partial(forward, *example(17, 512, 4, "l2", masked=True, loop=False))
    yield partial(forward, *example(41, 40, 9, "l1"))
    yield partial(forward, *example(64, 512, 64, "dot", half))
    yield partial(forward, *example(27, 65, 4, "cosine", biased=True, sources=12, masked=True))
    yield partial(forward, *example(196, 192, 9, "l1"))
    yield partial(forward, *example(196, 40, 32, "cosine", half, biased=True, dilation=2))
    yield partial(forward, *example(65, 65, 9, "l2", masked=True, loop=False))
    yield partial(forward, *example(784, 192, 12, "l2", sources=196, biased=True, dilation=2))
    yield partial(forward, *example(196, 384, 18, "l2", half, masked=True, sources=100))
    yield partial(forward, *example(196, 40, 64, "l2"))
