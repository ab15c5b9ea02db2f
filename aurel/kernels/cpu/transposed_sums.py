"""Gradients of means and sums over lists of neighbors: sums over the rows that list a node.

The lists of a graph are turned around, so that the sum of a node stays in registers.
"""

from __future__ import annotations

import numpy as np

from aurel.kernels.cpu.arrays import Array
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.row_sums import sum_rows
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import VECTOR_BYTES


@ranged
def turn_around(start, stop, lists, k, rows, nodes, mean, ends, listing, weights):
    """Write, for each node of some graphs, the rows that list it, and their weights.

    ``ends[j]`` is the end of node j in `listing` and `weights`; its rows are in ascending order.
    The weight of a row is 1, or 1 / the length of its list.
    """
    for graph in range(start, stop):
        first = graph * rows * k
        own_ends = ends[graph * nodes :][:nodes]
        own_ends[:] = 0
        for place in range(first, first + rows * k):
            if 0 <= lists[place] < nodes:
                own_ends[lists[place]] += 1
        total = first
        for j in range(nodes):  # to its start, which the next loop moves to its end
            count = own_ends[j]
            own_ends[j] = total
            total += count
        for row in range(rows):
            own = lists[first + row * k :][:k]
            found = 0
            for s in range(k):
                found += 0 <= own[s] < nodes
            weight = 1 / weights.dtype.type(found if mean and found > 0 else 1)
            for s in range(k):
                if 0 <= own[s] < nodes:
                    place = own_ends[own[s]]
                    listing[place] = row
                    weights[place] = weight
                    own_ends[own[s]] = place + 1


@ranged
def sum_over_lists(
    start, stop, grad, k, rows, nodes, channels, lanes, ends, listing, weights, total
):
    """Write the gradients of some nodes, numbered through all graphs."""
    for node in range(start, stop):
        graph = node // nodes
        begin = ends[node - 1] if node > graph * nodes else graph * rows * k
        count = ends[node] - begin
        rows_of, weights_of = listing[begin:][:count], weights[begin:][:count]
        one, first = grad.dtype.type(1), graph * rows
        sum_rows(weights_of, rows_of, count, grad, first, channels, lanes, one, total, node)


def backward(grad: Array, neighbors: Array, sizes: tuple[int, ...], mean: bool, out: Array) -> None:
    """Write the gradient of the nodes; `sizes` are K, rows and nodes of a graph, and channels."""
    k, rows, nodes, channels = sizes
    batch = out.size // max(1, nodes * channels)
    ends, listing = np.empty(batch * nodes, np.int64), np.empty(neighbors.size, np.int64)
    weights = np.empty(neighbors.size, grad.dtype)
    turned = ends, listing, weights
    run(turn_around, batch, 4 * neighbors.size, neighbors, k, rows, nodes, mean, *turned)
    lanes = VECTOR_BYTES // out.itemsize
    work = neighbors.size * channels // 4
    run(sum_over_lists, batch * nodes, work, grad, *sizes, lanes, *turned, out)
