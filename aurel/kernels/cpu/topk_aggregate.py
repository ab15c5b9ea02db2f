"""Average over the K best nodes, or over all that are no worse than the K-th."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu import neighbor_aggregate
from aurel.kernels.cpu.arrays import Array, flags, flat, indices, narrow, result, wide
from aurel.kernels.cpu.knn_graph import dense_problem
from aurel.kernels.cpu.problem import Problem
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import add_multiple, fill, pack
from aurel.kernels.cpu.row_sums import sum_rows
from aurel.kernels.cpu.scores import METRICS, sums_within
from aurel.kernels.cpu.search import describe, divide, prepare, scratch_for, search, search_part
from aurel.kernels.cpu.selection import choose, finish_scores, scratch_of
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import lanes_in

_NO_WINNER = torch.empty(0, dtype=torch.uint8)


@ranged
def means_of_graphs(start, stop, search, values, nodes, channels, k, neighbors, out):
    """Choose neighbors, and write the means of their values, in some whole graphs."""
    scratch = scratch_for(start, stop, search)
    packed, ones = np.empty(k, np.int64), np.ones(k, values.dtype)
    lanes = lanes_in(values)
    for graph in range(start, stop):
        search_part(graph, search, scratch, neighbors)
        first = graph * nodes
        for row in range(first, first + nodes):
            found = pack(neighbors, row * k, k, nodes, packed)
            scale = values.dtype.type(1) / values.dtype.type(max(found, 1))
            sum_rows(ones, packed, found, values, first, channels, lanes, scale, out, row)


@ranged
def adjacency_of_graphs(
    start, stop, x, squares, nodes, channels, valid, bias, metric, k, neighbors, weights
):
    """Write neighbors, and D^-1/2 A D^-1/2: A is 1 where a score is no worse than the K-th."""
    sums = np.empty((nodes, nodes), x.dtype)
    scores = np.empty(nodes, x.dtype)
    scratch = scratch_of(scores, k)
    chosen = np.empty(k, np.int64)
    scale = np.empty(nodes, x.dtype)
    for graph in range(start, stop):
        first = graph * nodes
        sums_within(x, first, nodes, channels, metric, sums)
        for i in range(nodes):
            row = weights[(first + i) * nodes : (first + i + 1) * nodes]
            fill(row, 0)
            found = 0
            degree = 0
            if valid.size == 0 or valid[first + i]:
                square = squares[first + i] if squares.size > 0 else x.dtype.type(0)
                finish_scores(sums, i, nodes, metric, square, squares, first, bias, 0, scores)
                found = choose(scores, nodes, valid, first, -1, k, scratch, chosen)
                last = scores[chosen[found - 1]] if found == k else np.inf
                for j in range(nodes):
                    if (valid.size == 0 or valid[first + j]) and scores[j] <= last:
                        row[j] = 1
                        degree += 1
            scale[i] = 1 / np.sqrt(max(degree, 1))
            for s in range(k):
                neighbors[(first + i) * k + s] = chosen[s] if s < found else -1
        for i in range(nodes):
            for j in range(nodes):
                weights[(first + i) * nodes + j] *= scale[i] * scale[j]


@ranged
def multiply_graphs(start, stop, weights, values, nodes, channels, transposed, out):
    """Write weights @ values; a weight of 0 adds nothing, not even NaN."""
    for graph in range(start, stop):
        first = graph * nodes
        for i in range(nodes):
            target = out[(first + i) * channels : (first + i + 1) * channels]
            fill(target, 0)
            for j in range(nodes):
                row, column = (j, i) if transposed else (i, j)
                weight = weights[(first + row) * nodes + column]
                if weight != 0:
                    source = values[(first + j) * channels : (first + j + 1) * channels]
                    add_multiple(target, source, weight)


def forward(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the averages (B, N, C'), the neighbors (B, N, K) and, for ties "all", the weights."""
    problem = dense_problem(wide(x), None, None, mask, None, k, metric, True, 1)
    batch, nodes, channels = x.shape
    neighbors, places = indices(batch, nodes, k)
    if ties == "exact":
        return _means(problem, values, neighbors, places), neighbors, result(x, 0)
    scaled, _, squares, _ = prepare(problem)
    weights = result(x, batch, nodes, nodes)
    run(
        adjacency_of_graphs,
        batch,
        problem.work(),
        scaled,
        squares,
        nodes,
        channels,
        flags(mask),
        problem.bias,
        METRICS[metric],
        k,
        places,
        flat(weights),
    )
    return _multiply(flat(weights), values, nodes, False), neighbors, weights


def _means(problem: Problem, values: Tensor, neighbors: Tensor, places: Array) -> Tensor:
    """Write the neighbors into `places`, their memory, and return the means of their values."""
    table, whole = divide(problem)
    if not whole:
        search(problem, places)
        return neighbor_aggregate.forward(values, neighbors, "mean", False)[0]
    _, nodes, channels = values.shape
    out = result(values, *values.shape)
    described = describe(problem, prepare(problem), table, whole)
    work = problem.work() + neighbors.shape[2] * out.numel() // 4
    sizes = nodes, channels, neighbors.shape[2]
    run(
        means_of_graphs,
        len(table),
        work,
        described,
        flat(values),
        *sizes,
        places,
        flat(out),
    )
    return narrow(out, values)


def backward(grad: Tensor, neighbors: Tensor, weights: Tensor, ties: str) -> Tensor:
    """Return the gradient of the values, (B, N, C')."""
    if ties == "exact":
        return neighbor_aggregate.backward(grad, neighbors, _NO_WINNER, grad.shape[1], "mean")
    return _multiply(flat(weights), grad, grad.shape[1], True)


def _multiply(weights: Array, values: Tensor, nodes: int, transposed: bool) -> Tensor:
    batch, _, channels = values.shape
    out = result(values, batch, nodes, channels)
    arguments = (weights, flat(values), nodes, channels, transposed, flat(out))
    run(multiply_graphs, batch, nodes * values.numel() // 8, *arguments)
    return narrow(out, values)
