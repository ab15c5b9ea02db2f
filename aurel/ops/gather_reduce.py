"""Reductions over neighbour lists that never form the (B, N, K, C) gather, and their gradients.

That gather is most of the cost of the plain version. Here the nodes of a batch are rows of one
matrix. A CPU reads the neighbours of a row from a sparse matrix; elsewhere, and where it is to be
known which neighbour won, K row selections are folded into the result one after the other.

`padded` says that there may be -1 (an empty slot) among the neighbours.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.distances import at_least_float32
from aurel.ops.precision import without_autocast

_CHUNK = 2**20  # bytes a pass on a CPU: its scratch stays in the cache
_DENSE = 32  # nodes up to which, on a CPU, a product with a matrix of weights sums faster


def winner_dtype(k: int) -> torch.dtype:
    """Return the dtype that tells which of `k` slots won: a byte where that is enough."""
    return torch.uint8 if k <= 256 else torch.int32


def max_over_neighbors(
    x: Tensor, neighbors: Tensor, padded: bool, keep_winner: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima, (B, N, C), and the slots that attain them (none unless `keep_winner`).

    The first slot wins ties. A row without neighbours has maximum -inf.
    """
    rows = _rows(x, -torch.inf, padded)
    index = _row_index(neighbors, padded)
    winner = x.new_empty(x.shape if keep_winner else 0, dtype=winner_dtype(index.shape[1]))
    if keep_winner:
        best = _fold_maximum_and_slot(rows, index, winner.flatten(0, 1))
    else:
        best = (_sparse_maximum if x.device.type == "cpu" else _fold_maximum)(rows, index)
    return best.view(x.shape), winner


def _sparse_maximum(rows: Tensor, index: Tensor) -> Tensor:
    """Return the maxima over the `rows` that each row of `index` lists, by a sparse product."""
    _take_warnings_of_sparse_tensors()
    first = torch.arange(0, index.numel() + 1, index.shape[1])
    size = (len(index), len(rows))
    ones = rows.new_ones(index.numel())
    adjacency = torch.sparse_csr_tensor(first, index.flatten(), ones, size, check_invariants=False)
    return torch.sparse.mm(adjacency, rows, "amax")


@cache
def _take_warnings_of_sparse_tensors() -> None:
    """Let torch say, which it does once, that sparse CSR tensors are in beta and not checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


def _fold_maximum(rows: Tensor, index: Tensor) -> Tensor:
    slots = index.t().contiguous()
    best = rows.index_select(0, slots[0])
    for slot in slots[1:]:
        torch.maximum(best, rows.index_select(0, slot), out=best)
    return best


def _fold_maximum_and_slot(rows: Tensor, index: Tensor, winner: Tensor) -> Tensor:
    """Return the maxima and write into `winner` which slot attains them."""
    slots = index.t().contiguous()
    best = rows.new_empty(len(index), rows.shape[1])
    width = max(1, 4 * rows.shape[1] * rows.element_size())
    step = max(1, _CHUNK // width if rows.device.type == "cpu" else len(best))
    for start in range(0, len(best), step):
        part = slice(start, start + step)
        _fold_part(rows, slots[:, part], best[part], winner[part])
    return best


def _fold_part(rows: Tensor, slots: Tensor, best: Tensor, winner: Tensor) -> None:
    candidate = torch.empty_like(best)
    # Slot numbers and comparisons in a floating-point dtype that holds them: on a CPU,
    # comparisons into bool take three times as long.
    number = best.dtype if len(slots) <= 256 else torch.float32
    larger = torch.empty_like(best, dtype=number)
    last_larger = torch.zeros_like(best, dtype=number)
    torch.index_select(rows, 0, slots[0], out=best)
    for j in range(1, len(slots)):
        torch.index_select(rows, 0, slots[j], out=candidate)
        torch.gt(candidate, best, out=larger)
        torch.maximum(last_larger, larger.mul_(j), out=last_larger)
        torch.maximum(best, candidate, out=best)
    winner.copy_(last_larger)


def add_to_winner(
    total: Tensor, grad: Tensor, neighbors: Tensor, winner: Tensor, padded: bool
) -> Tensor:
    """Add `grad`, (B, N, C), in place to the nodes of `total` that attained the maxima."""
    source = neighbors.gather(2, winner.long())
    if padded:
        grad = grad.masked_fill(source < 0, 0)
        source.clamp_min_(0)
    return total.scatter_add_(1, source, grad)


def sum_over_neighbors(x: Tensor, neighbors: Tensor, padded: bool, mean: bool) -> Tensor:
    """Return the sums or means over the neighbours, (B, N, C); 0 without neighbours."""
    if _dense_pays(x):
        wide = at_least_float32(x)
        total = _multiply(_counts(neighbors, wide.dtype), wide)
        return (total.div_(_degrees(neighbors)) if mean else total).to(x.dtype)
    out = F.embedding_bag(
        _row_index(neighbors, padded),
        _rows(x, 0.0, padded),
        mode="mean" if mean else "sum",
        padding_idx=x.shape[0] * x.shape[1] if padded else None,
    )
    return out.view(x.shape)


def sum_over_neighbors_backward(
    grad: Tensor, neighbors: Tensor, padded: bool, mean: bool
) -> Tensor:
    """Return the gradient of `sum_over_neighbors` for x, accumulated in float32 at least."""
    wide = at_least_float32(grad)
    if mean:
        wide = wide / _degrees(neighbors)
    if _dense_pays(wide):
        return _multiply(_counts(neighbors, wide.dtype).mT, wide).to(grad.dtype)
    wide = wide.flatten(0, 1)
    total = wide.new_zeros(len(wide) + padded, wide.shape[1])  # a last row for empty slots
    for slot in _row_index(neighbors, padded).unbind(1):
        total.index_add_(0, slot, wide)
    return total[: len(wide)].view(grad.shape).to(grad.dtype)


def _dense_pays(x: Tensor) -> bool:
    """Return whether a product with an (N, N) matrix is the way to sum, which spreads NaN."""
    return x.device.type == "cpu" and x.shape[1] <= _DENSE and bool(x.sum().isfinite())


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    with without_autocast(b):
        return torch.bmm(a, b)


def _degrees(neighbors: Tensor) -> Tensor:
    """Return the number of neighbours, at least 1, (B, N, 1)."""
    return (neighbors >= 0).sum(2, keepdim=True).clamp_min_(1)


def _counts(neighbors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how often node j is a neighbour of node i, (B, N, N)."""
    batch, nodes, _ = neighbors.shape
    present = (neighbors >= 0).to(dtype)
    counts = present.new_zeros(batch, nodes, nodes)
    return counts.scatter_add_(2, neighbors.clamp_min(0), present)


def _rows(x: Tensor, fill: float, padded: bool) -> Tensor:
    """Return all nodes of the batch as rows, and a last one that empty slots point to."""
    rows = x.flatten(0, 1)
    return torch.cat((rows, rows.new_full((1, rows.shape[1]), fill))) if padded else rows


def _row_index(neighbors: Tensor, padded: bool) -> Tensor:
    """Return the row of `_rows` that each neighbour lies in, (B * N, K)."""
    batch, nodes, k = neighbors.shape
    first = torch.arange(batch, device=neighbors.device)[:, None, None] * nodes
    index = neighbors + first
    if padded:
        index.masked_fill_(neighbors < 0, batch * nodes)
    return index.reshape(-1, k)
