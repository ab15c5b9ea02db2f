"""Maximum, mean or sum over given lists of neighbors, (B, N, K), into graphs of M nodes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu import transposed_sums
from aurel.kernels.cpu.arrays import check_winner, flat, narrow, result, winners
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import (
    add_to_winners,
    fill,
    is_empty,
    is_finite,
    pack,
)
from aurel.kernels.cpu.row_maxima import any_maximum, maximum
from aurel.kernels.cpu.row_sums import sum_rows
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import lanes_in

MAX, MEAN, SUM = 0, 1, 2
WHOLE = 1024  # nodes up to which a whole graph is checked for NaN at once
_REDUCTIONS = {"max": MAX, "mean": MEAN, "sum": SUM}


@uncounted
def maximum_of_row(row, x, base, packed, found, channels, finite, node, node_at, keep, out, winner):
    """Write one row of the maxima, less the row of `node`, and its winners if `keep`.

    A row without neighbors is 0.
    """
    if found == 0:
        fill(out[row * channels :][:channels], 0)
        fill(winner[row * channels :][: channels if keep else 0], 0)
        return
    if not finite:
        finite = True
        for s in range(found):
            finite = finite and is_finite(x[base + packed[s] * channels :][:channels])
    if finite:
        maximum(packed, found, x, base, channels, node, node_at, keep, out, row, winner)
    else:
        any_maximum(packed, found, x, base, channels, 0, node, node_at, keep, out, row, winner)


@ranged
def forward_rows(
    start, stop, x, lists, relative, k, rows, nodes, channels, reduce, keep, out, winner
):
    """Reduce for some rows of all graphs, less the rows of `relative` if that is not empty."""
    packed, ones = np.empty(k, np.int64), np.ones(k, x.dtype)
    lanes = lanes_in(x)
    node = relative if relative.size > 0 else np.zeros(channels, x.dtype)
    stride = channels if relative.size > 0 else 0
    checked = -1
    finite = False
    for row in range(start, stop):
        graph = row // rows
        base = graph * nodes * channels
        found = pack(lists, row * k, k, nodes, packed)
        if reduce != MAX:
            count = max(found, 1) if reduce == MEAN else 1
            scale = x.dtype.type(1) / x.dtype.type(count)
            sum_rows(ones, packed, found, x, graph * nodes, channels, lanes, scale, out, row)
            continue
        if graph != checked and nodes <= WHOLE:
            finite = is_finite(x[base : base + nodes * channels])
            checked = graph
        maximum_of_row(
            row, x, base, packed, found, channels, finite, node, row * stride, keep, out, winner
        )


@ranged
def add_to_winners_of_graphs(start, stop, grad, lists, winner, k, rows, nodes, channels, total):
    """Write the gradients of maxima for the nodes of some graphs."""
    for graph in range(start, stop):
        base = graph * nodes * channels
        fill(total[base : base + nodes * channels], 0)
        for row in range(graph * rows, (graph + 1) * rows):
            if is_empty(lists, row * k, k, nodes):
                continue
            grad_row = grad[row * channels : (row + 1) * channels]
            won = winner[row * channels : (row + 1) * channels]
            add_to_winners(total, base, grad_row, won, channels)


@ranged
def add_to_winners_in_blocks(
    start, stop, grad, lists, winner, k, rows, nodes, channels, width, total
):
    """Write the gradients of maxima for one graph, some blocks of `width` channels."""
    for block in range(start, stop):
        low = block * width
        high = min(low + width, channels)
        for j in range(nodes):
            fill(total[j * channels + low : j * channels + high], 0)
        for row in range(rows):
            if is_empty(lists, row * k, k, nodes):
                continue
            place = row * channels
            for c in range(low, high):
                total[winner[place + c] * channels + c] += grad[place + c]


def forward(x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool) -> tuple[Tensor, Tensor]:
    """Return the reduction (B, N, C) and, for "max" and if `keep_winner`, the winning nodes."""
    return reduce_lists(x, neighbors, reduce, keep_winner)


def reduce_lists(
    x: Tensor,
    neighbors: Tensor,
    reduce: str,
    keep_winner: bool,
    relative_to: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the results of `forward`, less the nodes of `relative_to`, (B, N, C), if not None."""
    batch, nodes, channels = x.shape
    rows, k = neighbors.shape[1:]
    out = result(x, batch, rows, channels)
    keep_winner = keep_winner and reduce == "max"
    winner = winners(nodes, *((batch, rows, channels) if keep_winner else (0,)))
    run(
        forward_rows,
        batch * rows,
        k * out.numel() // 4,
        flat(x),
        flat(neighbors),
        flat(out[:0] if relative_to is None else relative_to),
        k,
        rows,
        nodes,
        channels,
        _REDUCTIONS[reduce],
        keep_winner,
        flat(out),
        flat(winner),
    )
    return narrow(out, x), winner


def backward(grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, reduce: str) -> Tensor:
    """Return the gradient of x, (B, M, C)."""
    batch, rows, channels = grad.shape
    k = neighbors.shape[2]
    total = result(grad, batch, nodes, channels)
    out, lists, sizes = flat(total), (flat(grad), flat(neighbors)), (k, rows, nodes, channels)
    if reduce != "max":
        transposed_sums.backward(*lists, sizes, reduce == "mean", out)
        return narrow(total, grad)
    check_winner(winner, grad)
    arguments = (*lists, flat(winner), *sizes)
    work = 4 * grad.numel()
    if batch == 1 and channels >= 32:
        width = 16
        run(add_to_winners_in_blocks, -(-channels // width), work, *arguments, width, out)
    else:
        run(add_to_winners_of_graphs, batch, work, *arguments, out)
    return narrow(total, grad)
