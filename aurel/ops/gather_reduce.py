"""Rows of tensors, and reductions over neighbor lists that never form their (B, N, K, C) gather.

That gather is most of the cost of the definition. Here the nodes of a batch are rows of one matrix,
and K selections of rows are reduced one after the other. Empty slots point to an additional last
row, which changes no result.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.kernels.winners import winner_dtype
from aurel.ops.distances import at_least_float32
from aurel.ops.precision import in_dtype


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `x`, (M, C), at `index`, (*, C); gradients of halves add up in float32."""
    # An embedding's backward is deterministic, and on a CPU several times faster than that of
    # an index.
    return in_dtype(F.embedding(index, at_least_float32(x)), x.dtype)


def max_over_neighbors(x: Tensor, neighbors: Tensor, keep_winner: bool) -> tuple[Tensor, Tensor]:
    """Return the maxima, (B, N, C), and the nodes that attain them (empty unless `keep_winner`).

    Of equal values the first slot wins. A row without neighbors has maximum 0 and winner 0.

    Args:
        x: (B, M, C).
        neighbors: (B, N, K).
        keep_winner: return the winners.
    """
    batch, nodes, channels = x.shape
    shape = (*neighbors.shape[:2], channels)
    rows = _rows(x, -torch.inf)
    slots = _row_index(neighbors, nodes).t().contiguous()
    best = rows.index_select(0, slots[0])
    winner = x.new_empty(shape if keep_winner else (0,), dtype=winner_dtype(nodes))
    if not keep_winner:
        for slot in slots[1:]:
            torch.maximum(best, rows.index_select(0, slot), out=best)
    else:
        node = neighbors.clamp_min(0).to(winner.dtype).flatten(0, 1)
        winner_rows = winner.flatten(0, 1).copy_(node[:, :1].expand(-1, channels))
        still_empty = slots[0] == batch * nodes
        for j in range(1, len(slots)):
            candidate = rows.index_select(0, slots[j])
            larger = candidate > best
            # A first neighbor of -inf wins over an empty slot.
            larger |= (still_empty & (slots[j] < batch * nodes))[:, None]
            still_empty &= slots[j] == batch * nodes
            torch.maximum(best, candidate, out=best)
            winner_rows.copy_(torch.where(larger, node[:, j, None], winner_rows))
    out = best.view(shape)
    return out.masked_fill_(without_neighbors(neighbors), 0), winner


def add_to_winner(total: Tensor, grad: Tensor, neighbors: Tensor, winner: Tensor) -> Tensor:
    """Return (B, M, C) `total` plus the gradients, (B, N, C), at the nodes that won the maxima."""
    if total.shape[1] == 0:
        return total
    grad = grad.masked_fill(without_neighbors(neighbors), 0)
    return total.scatter_add(1, winner.long(), grad)


def without_neighbors(neighbors: Tensor) -> Tensor:
    """Return which lists, (B, N, K), have empty slots only, (B, N, 1)."""
    return (neighbors < 0).all(2, keepdim=True)


def sum_over_neighbors(x: Tensor, neighbors: Tensor, mean: bool) -> Tensor:
    """Return the sums or means over the neighbors, (B, N, C); 0 without neighbors.

    Args:
        x: (B, M, C).
        neighbors: (B, N, K).
        mean: divide by the number of neighbors.
    """
    out = F.embedding_bag(
        _row_index(neighbors, x.shape[1]),
        _rows(at_least_float32(x), 0.0),
        mode="mean" if mean else "sum",
        padding_idx=x.shape[0] * x.shape[1],
    )
    return out.view(*neighbors.shape[:2], x.shape[2]).to(x.dtype)


def sum_over_neighbors_backward(grad: Tensor, neighbors: Tensor, nodes: int, mean: bool) -> Tensor:
    """Return the gradient of `sum_over_neighbors` for its M `nodes`, added in float32 at least."""
    wide = at_least_float32(grad)
    if mean:
        wide = wide / degrees(neighbors)
    wide = wide.flatten(0, 1)
    batch, channels = grad.shape[0], grad.shape[2]
    total = wide.new_zeros(batch * nodes + 1, channels)
    for slot in _row_index(neighbors, nodes).unbind(1):
        total = total.index_add(0, slot, wide)
    return total[:-1].view(batch, nodes, channels).to(grad.dtype)


def degrees(neighbors: Tensor) -> Tensor:
    """Return the number of neighbors, at least 1, (B, N, 1)."""
    return (neighbors >= 0).sum(2, keepdim=True).clamp_min(1)


def _rows(x: Tensor, fill: float) -> Tensor:
    """Return all nodes of the batch as rows, and a last row of `fill` for empty slots."""
    rows = x.flatten(0, 1)
    return torch.cat((rows, rows.new_full((1, rows.shape[1]), fill)))


def _row_index(neighbors: Tensor, nodes: int) -> Tensor:
    """Return the row of `_rows` that each neighbor lies in, (B * N, K)."""
    batch, _, k = neighbors.shape
    first = torch.arange(batch, device=neighbors.device)[:, None, None] * nodes
    empty = (neighbors < 0) | (neighbors >= nodes)
    return (neighbors + first).masked_fill(empty, batch * nodes).reshape(-1, k)
