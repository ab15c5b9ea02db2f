"""Reductions over the edges to each node, however many there are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.distances import at_least_float32
from aurel.ops.neighbor_aggregate import Reduce
from aurel.ops.ragged_aggregate import ragged_neighbor_aggregate
from aurel.pyg.edges import padded_lists, targets


def reduce_edges(values: Tensor, source: Tensor, degree: Tensor, reduce: Reduce) -> Tensor:
    """Return the reduction of the rows of `values` over the edges to each node.

    Where nodes have about the same number of edges, `neighbor_aggregate` reduces padded lists;
    elsewhere these would grow with the nodes times the longest list, and edges are scattered.

    Args:
        values: (Q, C).
        source: (E,) int64, the row of `values` of each edge, sorted by target.
        degree: (M,) int64, the number of edges to each node.
        reduce: "max", whose gradient goes to the first edge that attains it, "mean" or "sum".

    Returns:
        (M, C), 0 for nodes without edges.
    """
    longest = int(degree.max()) if len(degree) else 0
    if longest * len(degree) <= 2 * len(source):
        return ragged_neighbor_aggregate(values, padded_lists(source, degree), reduce)
    gathered = F.embedding(source, values)
    target = targets(source, degree)
    if reduce == "max":
        return _first_maximum(gathered, target, degree)
    wide = at_least_float32(gathered)
    rows = target[:, None].expand_as(wide)
    total = wide.new_zeros(len(degree), wide.shape[1]).scatter_add(0, rows, wide)
    if reduce == "mean":
        total = total / degree.clamp_min(1)[:, None]
    return total.to(values.dtype)


def _first_maximum(values: Tensor, target: Tensor, degree: Tensor) -> Tensor:
    """Return the maxima (M, C) of the edges' `values`, (E, C); on ties that of the first edge."""
    shape = len(degree), values.shape[1]
    last = len(values) - 1
    with torch.no_grad():
        rows = target[:, None].expand_as(values)
        best = values.new_full(shape, -torch.inf).scatter_reduce(0, rows, values, "amax")
        attains = (values == F.embedding(target, best)) | values.isnan()
        edges = torch.arange(len(values), device=values.device, dtype=torch.int32)
        candidates = edges[:, None].where(attains, last)
        first = candidates.new_full(shape, last).scatter_reduce(0, rows, candidates, "amin")
    return values.gather(0, first.long()).masked_fill((degree == 0)[:, None], 0)
