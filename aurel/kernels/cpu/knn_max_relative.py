"""The maximum over the K nearest sources, less the node."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import (
    check_winner,
    flat,
    indices,
    narrow,
    result,
    wide,
    winners,
)
from aurel.kernels.cpu.compiler import uncounted
from aurel.kernels.cpu.knn_graph import dense_problem
from aurel.kernels.cpu.neighbor_aggregate import maximum_of_row, reduce_lists
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import add_to_winners, fill, is_empty, is_finite, pack
from aurel.kernels.cpu.search import (
    describe,
    divide,
    prepare,
    scratch_for,
    search,
    search_part,
)
from aurel.kernels.cpu.threads import run


@ranged
def forward_graphs(start, stop, search, x, nodes, channels, k, keep, neighbors, out, winner):
    """Choose neighbors, and write the maxima, in some graphs whose nodes are their own sources.

    So a graph's nodes are still in the cache when they are read again.
    """
    scratch = scratch_for(start, stop, search)
    packed = np.empty(k, np.int64)
    for graph in range(start, stop):
        search_part(graph, search, scratch, neighbors)
        maxima_of_graph(graph, x, nodes, channels, k, keep, neighbors, packed, out, winner)


@uncounted
def maxima_of_graph(graph, x, nodes, channels, k, keep, neighbors, packed, out, winner):
    """Write the maxima of one graph, less its nodes, and the winners if `keep`."""
    base = graph * nodes * channels
    finite = is_finite(x[base:][: nodes * channels])
    for row in range(graph * nodes, (graph + 1) * nodes):
        found = pack(neighbors, row * k, k, nodes, packed)
        maximum_of_row(
            row, x, base, packed, found, channels, finite, x, row * channels, keep, out, winner
        )


@ranged
def backward_graphs(
    start, stop, grad, neighbors, winner, k, nodes, sources, channels, own, grad_x, grad_sources
):
    """Write the gradients of the nodes and of the sources of some graphs."""
    for graph in range(start, stop):
        base = graph * sources * channels
        if not own:
            fill(grad_sources[base : base + sources * channels], 0)
        first = graph * nodes
        for i in range(first, first + nodes):
            target = grad_x[i * channels : (i + 1) * channels]
            grad_row = grad[i * channels : (i + 1) * channels]
            if is_empty(neighbors, i * k, k, sources):
                fill(target, 0)
            else:
                for c in range(channels):
                    target[c] = -grad_row[c]
        total = grad_x if own else grad_sources
        for i in range(first, first + nodes):
            if not is_empty(neighbors, i * k, k, sources):
                grad_row = grad[i * channels : (i + 1) * channels]
                won = winner[i * channels : (i + 1) * channels]
                add_to_winners(total, base, grad_row, won, channels)


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

    The winners are empty unless `keep_winner`. Arguments: see `knn_graph.forward`.
    """
    problem = dense_problem(wide(x), sources, bias, mask, source_mask, k, metric, loop, dilation)
    neighbors, places = indices(x.shape[0], x.shape[1], k)
    table, whole = divide(problem)
    if whole and sources is None:
        out, winner = result(x, *x.shape), winners(x.shape[1], *(x.shape if keep_winner else (0,)))
        described = describe(problem, prepare(problem), table, whole)
        run(
            forward_graphs,
            len(table),
            problem.work(),
            described,
            problem.x,
            x.shape[1],
            x.shape[2],
            k,
            keep_winner,
            places,
            flat(out),
            flat(winner),
        )
        return narrow(out, x), neighbors, winner
    search(problem, places)
    features = x if sources is None else sources
    out, winner = reduce_lists(features, neighbors, "max", keep_winner, relative_to=x)
    return out, neighbors, winner


def backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, own: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the nodes (B, N, C) and of the sources (B, M, C), empty if `own`."""
    check_winner(winner, grad)
    batch, rows, channels = grad.shape
    grad_x = result(grad, batch, rows, channels)
    grad_sources = result(grad, *((0,) if own else (batch, nodes, channels)))
    run(
        backward_graphs,
        batch,
        4 * grad.numel(),
        flat(grad),
        flat(neighbors),
        flat(winner),
        neighbors.shape[2],
        rows,
        nodes,
        channels,
        own,
        flat(grad_x),
        flat(grad_sources),
    )
    return narrow(grad_x, grad), narrow(grad_sources, grad)
