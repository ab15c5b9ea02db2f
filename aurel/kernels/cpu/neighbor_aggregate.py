"""Maximum, mean or sum over given lists of neighbors, (B, N, K), into graphs of M nodes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import check_winner, flat, narrow, result, winners
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import (
    add_multiple,
    add_to_winners,
    fill,
    is_finite,
    pack,
    reduce_sum,
)
from aurel.kernels.cpu.row_maxima import any_maximum, maximum
from aurel.kernels.cpu.threads import run

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
    packed = np.empty(k, np.int64)
    node = relative if relative.size > 0 else np.zeros(channels, x.dtype)
    stride = channels if relative.size > 0 else 0
    checked = -1
    finite = False
    for row in range(start, stop):
        graph = row // rows
        base = graph * nodes * channels
        found = pack(lists, row * k, k, nodes, packed)
        if reduce != MAX:
            divisor = max(found, 1) if reduce == MEAN else 1
            target = out[row * channels : (row + 1) * channels]
            reduce_sum(x, base, packed, found, channels, divisor, target)
            continue
        if graph != checked and nodes <= WHOLE:
            finite = is_finite(x[base : base + nodes * channels])
            checked = graph
        maximum_of_row(
            row, x, base, packed, found, channels, finite, node, row * stride, keep, out, winner
        )


@ranged
def backward_graphs(start, stop, grad, lists, winner, k, rows, nodes, channels, reduce, total):
    """Write the gradients of the nodes of some graphs."""
    packed = np.empty(k, np.int64)
    for graph in range(start, stop):
        base = graph * nodes * channels
        fill(total[base : base + nodes * channels], 0)
        for row in range(graph * rows, (graph + 1) * rows):
            found = pack(lists, row * k, k, nodes, packed)
            grad_row = grad[row * channels : (row + 1) * channels]
            if found == 0:
                continue
            if reduce == MAX:
                won = winner[row * channels : (row + 1) * channels]
                add_to_winners(total, base, grad_row, won, channels)
                continue
            factor = grad.dtype.type(1) / grad.dtype.type(found if reduce == MEAN else 1)
            for s in range(found):
                add_multiple(total[base + packed[s] * channels :][:channels], grad_row, factor)


@ranged
def backward_channels(
    start, stop, grad, lists, winner, k, rows, nodes, channels, reduce, width, total
):
    """Write the gradients of all nodes of one graph, some blocks of `width` channels."""
    packed = np.empty(k, np.int64)
    for block in range(start, stop):
        low = block * width
        high = min(low + width, channels)
        for j in range(nodes):
            fill(total[j * channels + low : j * channels + high], 0)
        for row in range(rows):
            found = pack(lists, row * k, k, nodes, packed)
            if found == 0:
                continue
            place = row * channels
            if reduce == MAX:
                for c in range(low, high):
                    total[winner[place + c] * channels + c] += grad[place + c]
                continue
            factor = grad.dtype.type(1) / grad.dtype.type(found if reduce == MEAN else 1)
            grad_row = grad[place + low : place + high]
            for s in range(found):
                first = packed[s] * channels
                add_multiple(total[first + low : first + high], grad_row, factor)


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
    if reduce == "max":
        check_winner(winner, grad)
    batch, rows, channels = grad.shape
    k = neighbors.shape[2]
    total = result(grad, batch, nodes, channels)
    work = (4 if reduce == "max" else k) * grad.numel()
    arguments = (flat(grad), flat(neighbors), flat(winner), k, rows, nodes, channels)
    if batch == 1 and channels >= 32:
        width = 16
        blocks = -(-channels // width)
        run(backward_channels, blocks, work, *arguments, _REDUCTIONS[reduce], width, flat(total))
    else:
        run(backward_graphs, batch, work, *arguments, _REDUCTIONS[reduce], flat(total))
    return narrow(total, grad)
