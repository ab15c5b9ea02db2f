"""The K nearest nodes by distances, cosines or products, ties to the lowest index."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import Array, flags, flat, indices, wide
from aurel.kernels.cpu.problem import Problem, dense_rows
from aurel.kernels.cpu.search import search


def dense_problem(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
) -> Problem:
    """Return the search in a dense batch; neighbors are numbered within their graph."""
    batch, nodes, channels = x.shape
    own = flat(x)
    rows = dense_rows(batch, nodes)
    return Problem(
        x=own,
        y=own if sources is None else flat(sources),
        channels=channels,
        rows=rows,
        sources=rows if sources is None else dense_rows(batch, sources.shape[1]),
        valid=flags(mask),
        source_valid=flags(mask if sources is None else source_mask),
        bias=np.empty(0, own.dtype) if bias is None else _bias(bias, own),
        bias_stride=0 if bias is None or bias.dim() == 2 else bias.shape[1] * bias.shape[2],
        metric=metric,
        k=k,
        dilation=dilation,
        loop=loop,
        local=True,
    )


def _bias(bias: Tensor, x: Array) -> Array:
    array: Array = flat(bias).astype(x.dtype, copy=False)
    return array


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
    """Return the neighbors, (B, N, K) int64, -1 in empty slots.

    Args:
        x: nodes, (B, N, C).
        sources: candidates, (B, M, C); None for x.
        bias: added to the distances, (N, M) or (B, N, M), or None.
        mask: (B, N) bool, which nodes exist, or None.
        source_mask: (B, M) bool, which sources exist, or None.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may be its own neighbor.
        dilation: d, to keep every d-th of the nearest.
    """
    problem = dense_problem(wide(x), sources, bias, mask, source_mask, k, metric, loop, dilation)
    neighbors, places = indices(x.shape[0], x.shape[1], k)
    search(problem, places)
    return neighbors
