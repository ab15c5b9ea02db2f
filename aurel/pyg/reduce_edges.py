"""Reductions over the edges to each node, however many there are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.distances import at_least_float32
from aurel.ops.neighbor_aggregate import Reduce
from aurel.ops.ragged_aggregate import ragged_neighbor_aggregate
from aurel.pyg.edges import padded_lists, positions, targets

_LENGTH = 32  # of a part of a long list


def reduce_edges(values: Tensor, source: Tensor, degree: Tensor, reduce: Reduce) -> Tensor:
    """Return the reduction of the rows of `values` over the edges to each node.

    Where nodes have about the same number of edges, `neighbor_aggregate` reduces padded lists.
    Elsewhere these would grow with the nodes times the longest list: sums are scattered, and of
    long lists the maxima of parts are found first, then their maxima in the same way.

    Args:
        values: (Q, C).
        source: (E,) int64, the row of `values` of each edge, sorted by target.
        degree: (M,) int64, the number of edges to each node.
        reduce: "max", whose gradient goes to the first edge that attains it, "mean" or "sum".

    Returns:
        (M, C), 0 for nodes without edges.
    """
    if _is_short(degree, len(source)):
        return ragged_neighbor_aggregate(values, padded_lists(source, degree), reduce)
    if reduce == "max":
        return _maxima_in_parts(values, source, degree)
    wide = F.embedding(source, at_least_float32(values))  # gradients add up in float32, too
    rows = targets(source, degree)[:, None].expand_as(wide)
    total = wide.new_zeros(len(degree), wide.shape[1]).scatter_add(0, rows, wide)
    if reduce == "mean":
        total = total / degree.clamp_min(1)[:, None]
    return total.to(values.dtype)


def _is_short(degree: Tensor, edges: int) -> bool:
    """Return whether lists may be padded to the longest one."""
    longest = int(degree.max()) if len(degree) else 0
    return longest <= _LENGTH or longest * len(degree) <= 2 * edges


def _maxima_in_parts(values: Tensor, source: Tensor, degree: Tensor) -> Tensor:
    while not _is_short(degree, len(source)):
        parts = (degree + _LENGTH - 1) // _LENGTH
        total = int(parts.sum())
        left = degree.repeat_interleave(parts, output_size=total)
        lengths = (left - _LENGTH * positions(parts, total)).clamp_max(_LENGTH)
        values = ragged_neighbor_aggregate(values, padded_lists(source, lengths), "max")
        source, degree = torch.arange(total, device=degree.device), parts
    return ragged_neighbor_aggregate(values, padded_lists(source, degree), "max")
