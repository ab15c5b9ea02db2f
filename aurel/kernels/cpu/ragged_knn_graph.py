"""The K nearest nodes within graphs of any sizes, one after the other in x."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import Array, flags, flat, indices
from aurel.kernels.cpu.problem import Problem
from aurel.kernels.cpu.search import search


def forward(
    x: Tensor,
    batch: Tensor,
    sources: Tensor | None,
    source_batch: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
) -> Tensor:
    """Return the neighbors, (P, K) int64 rows of the sources, -1 in empty slots.

    Args:
        x: nodes, (P, C).
        batch: (P,) int64, the graph of each node, sorted.
        sources: candidates, (Q, C); None for x.
        source_batch: (Q,) int64, sorted.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may be its own neighbor.
    """
    numbers = flat(batch)
    first = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
    rows = _runs(first, len(numbers))
    own = flat(x)
    problem = Problem(
        x=own,
        y=own if sources is None else flat(sources),
        channels=x.shape[1],
        rows=rows,
        sources=rows if source_batch is None else _matching(flat(source_batch), numbers[first]),
        valid=flags(None),
        source_valid=flags(None),
        bias=np.empty(0, own.dtype),
        bias_stride=0,
        metric=metric,
        k=k,
        dilation=1,
        loop=loop,
        local=False,
    )
    neighbors, places = indices(len(x), k)
    search(problem, places)
    return neighbors


def _runs(first: Array, total: int) -> Array:
    """Return first row and number of rows of each graph, (G, 2)."""
    rows = np.empty((len(first), 2), np.int64)
    rows[:, 0] = first
    rows[:, 1] = np.diff(first, append=total)
    return rows


def _matching(numbers: Array, graphs: Array) -> Array:
    """Return first source and number of sources of each graph, (G, 2)."""
    first = np.searchsorted(numbers, graphs)
    return np.stack((first, np.searchsorted(numbers, graphs, side="right") - first), 1)
