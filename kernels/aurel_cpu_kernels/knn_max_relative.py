"""The maximum over the K nearest sources, less the node."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel_cpu_kernels.arrays import check_winner, flat, narrow, result, wide
from aurel_cpu_kernels.knn_graph import dense_problem
from aurel_cpu_kernels.neighbor_aggregate import reduce_lists
from aurel_cpu_kernels.ranges import ranged
from aurel_cpu_kernels.reduce import add_to_winners, fill, pack
from aurel_cpu_kernels.search import search
from aurel_cpu_kernels.threads import run


@ranged
def backward_graphs(
    start, stop, grad, neighbors, winner, k, nodes, sources, channels, own, grad_x, grad_sources
):
    """Write the gradients of the nodes and of the sources of some graphs."""
    packed = np.empty(k, np.int64)
    for graph in range(start, stop):
        base = graph * sources * channels
        if not own:
            fill(grad_sources[base : base + sources * channels], 0)
        first = graph * nodes
        for i in range(first, first + nodes):
            target = grad_x[i * channels : (i + 1) * channels]
            given = grad[i * channels : (i + 1) * channels]
            if pack(neighbors, i * k, k, sources, packed) == 0:
                fill(target, 0)
            else:
                for c in range(channels):
                    target[c] = -given[c]
        total = grad_x if own else grad_sources
        for i in range(first, first + nodes):
            if pack(neighbors, i * k, k, sources, packed) > 0:
                given = grad[i * channels : (i + 1) * channels]
                won = winner[i * channels : (i + 1) * channels]
                add_to_winners(total, base, given, won, channels)


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
    neighbors = torch.empty((x.shape[0], x.shape[1], k), dtype=torch.int64)
    search(problem, flat(neighbors))
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
