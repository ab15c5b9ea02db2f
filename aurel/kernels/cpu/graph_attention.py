"""Graph attention on a given graph: sums over the edges, so other values have no effect."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from aurel.kernels.cpu.arrays import flags, flat, narrow, result
from aurel.kernels.cpu.compiler import inner, uncounted
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.reduce import fill
from aurel.kernels.cpu.row_sums import multiply_rows_of, sum_rows
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import lanes_in
from aurel.kernels.cpu.vector_math import exp_of_nonpositive, prefer_wide_vectors

_BLOCK = 16  # a row of scores is a multiple of it, so that loops over whole vectors have no rest


@uncounted
def _largest(row):
    """Return the largest of a multiple of four numbers; NaN is not one."""
    lowest = row.dtype.type(-np.inf)
    a, b, c, d = lowest, lowest, lowest, lowest
    for n in range(0, row.size, 4):  # four chains, since each comparison waits for the last one
        a = row[n] if row[n] > a else a
        b = row[n + 1] if row[n + 1] > b else b
        c = row[n + 2] if row[n + 2] > c else c
        d = row[n + 3] if row[n + 3] > d else d
    a = b if b > a else a
    c = d if d > c else c
    return c if c > a else a


@uncounted
def _weigh(target_score, source_scores, edges, slope, row, columns):
    """Write softmax weights and columns of the edges of one target, and return their number.

    Loops run over all sources, since a number of edges that changes would be mispredicted.
    """
    lowest = row.dtype.type(-np.inf)
    for j in range(source_scores.size):
        score = target_score + source_scores[j]
        score = score * slope if score < 0 else score
        row[j] = score if edges[j] else lowest
    fill(row[source_scores.size :], lowest)
    largest = _largest(row)
    for n in range(row.size):
        row[n] = exp_of_nonpositive(row[n] - largest)
    total = row.dtype.type(0)
    for n in range(row.size):
        total += row[n]
    share = row.dtype.type(1) / total
    count = 0
    for j in range(source_scores.size):
        row[count] = row[j] * share
        columns[count] = j
        count += edges[j]
    return count


@inner
def _scratch(graphs):
    """Return weights, columns and gradients of a row, with space for whole blocks of scores."""
    values, _, _, _, _, _, nodes, _, _ = graphs
    size = -(-nodes // _BLOCK) * _BLOCK
    return np.zeros(size, values.dtype), np.zeros(size, np.int64), np.zeros(size, values.dtype)


@uncounted
def _attend_rows(start, stop, graphs, out, weights, scratch):
    """Write the aggregates of some targets and, unless `weights` is empty, their weights."""
    values, target_score, source_score, adjacency, shared, heads, nodes, channels, _ = graphs
    slope, lanes = values.dtype.type(graphs[8]), lanes_in(values)
    row, columns, _ = scratch
    for target in range(start, stop):
        head, i = target // nodes, target % nodes
        edges = adjacency[(i if shared else head // heads * nodes + i) * nodes :][:nodes]
        sources = source_score[head * nodes :][:nodes]
        count = _weigh(target_score[target], sources, edges, slope, row, columns)
        one, first = values.dtype.type(1), head * nodes
        sum_rows(row, columns, count, values, first, channels, lanes, one, out, target)
        if weights.size > 0:
            all_weights = weights[target * nodes :][:nodes]
            fill(all_weights, 0)
            for n in range(count):
                all_weights[columns[n]] = row[n]


@ranged
def _attend(start, stop, graphs, out, weights):
    prefer_wide_vectors()
    _attend_rows(start, stop, graphs, out, weights, _scratch(graphs))


@uncounted
def _differentiate_scores(
    row, columns, count, grads, target_score, source_scores, slope, grad_sources
):
    """Add the gradients of the sources' scores, and return that of the target's."""
    mean = row.dtype.type(0)
    for n in range(count):
        mean += row[n] * grads[n]
    total = row.dtype.type(0)
    for n in range(count):
        grad = row[n] * (grads[n] - mean)
        if not target_score + source_scores[columns[n]] > 0:
            grad *= slope
        total += grad
        grad_sources[columns[n]] += grad
    return total


@uncounted
def _differentiate_head(head, graphs, outer, grads_of, weights, scratch):
    """Write the gradients of one head of one graph; `weights` is scratch of (N, N)."""
    values, target_score, source_score, adjacency, shared, heads, nodes, channels, _ = graphs
    slope, lanes = values.dtype.type(graphs[8]), lanes_in(values)
    grad_out, grad_weights = outer
    grad_values, grad_target, grad_source = grads_of
    row, columns, grads = scratch
    of_graph = adjacency[(0 if shared else head // heads) * nodes * nodes :][: nodes * nodes]
    sources = source_score[head * nodes :][:nodes]
    grad_sources = grad_source[head * nodes :][:nodes]
    fill(grad_sources, 0)
    for i in range(nodes):
        target = head * nodes + i
        count = _weigh(
            target_score[target], sources, of_graph[i * nodes :][:nodes], slope, row, columns
        )
        fill(grads, 0)
        if grad_out.size > 0:
            multiply_rows_of(
                grad_out, target, columns, count, values, head * nodes, channels, lanes, grads
            )
        for n in range(count):
            weights[i * nodes + columns[n]] = row[n]
            if grad_weights.size > 0:
                grads[n] += grad_weights[target * nodes + columns[n]]
        grad_target[target] = _differentiate_scores(
            row, columns, count, grads, target_score[target], sources, slope, grad_sources
        )
    for j in range(nodes):
        count = 0
        for i in range(nodes):
            row[count] = weights[i * nodes + j]
            columns[count] = i
            count += of_graph[i * nodes + j]
        count = count if grad_out.size > 0 else 0
        one, first = values.dtype.type(1), head * nodes
        sum_rows(row, columns, count, grad_out, first, channels, lanes, one, grad_values, first + j)


@ranged
def _differentiate(start, stop, graphs, outer, grads_of):
    """Write the gradients of some heads, from `outer`, those of the outputs."""
    prefer_wide_vectors()
    scratch = _scratch(graphs)
    nodes = graphs[6]
    weights = np.empty(nodes * nodes, graphs[0].dtype)
    for head in range(start, stop):
        _differentiate_head(head, graphs, outer, grads_of, weights, scratch)


def _graphs(
    values: Tensor, target_score: Tensor, source_score: Tensor, adjacency: Tensor, slope: float
) -> tuple[Any, ...]:
    """Return the arguments that both kernels take."""
    _, heads, nodes, channels = values.shape
    x = flat(values)
    scores = (flat(target_score), flat(source_score))
    sizes = adjacency.dim() == 2, heads, nodes, channels
    return (x, *scores, flags(adjacency), *sizes, slope)


def _work(values: Tensor) -> int:
    """Return the number of elementary operations; twelve multiply-adds count as one."""
    return values.numel() * values.shape[2] // 12


def forward(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Return the aggregates (B, H, N, C) and the weights (B, H, N, N), or (0,)."""
    batch, heads, nodes, channels = values.shape
    out = result(values, batch, heads, nodes, channels)
    graphs = _graphs(values, target_score, source_score, adjacency, negative_slope)
    if return_weights:
        weights = result(values, batch, heads, nodes, nodes)
        written = flat(weights)
    else:
        weights, written = values.new_empty(0), graphs[0][:0]
    run(_attend, batch * heads * nodes, _work(values), graphs, flat(out), written)
    return narrow(out, values), narrow(weights, values)


def backward(
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values and both scores, from those of the outputs that were used."""
    inputs = (values, target_score, source_score)
    grads = [result(each, *each.shape) for each in inputs]
    graphs = _graphs(*inputs, adjacency, negative_slope)
    unused = graphs[0][:0]
    run(
        _differentiate,
        values.shape[0] * values.shape[1],
        2 * _work(values),
        graphs,
        tuple(unused if grad is None else flat(grad) for grad in (grad_out, grad_weights)),
        tuple(flat(grad) for grad in grads),
    )
    grad_values, grad_target, grad_source = (
        narrow(grad, like) for grad, like in zip(grads, inputs, strict=True)
    )
    return grad_values, grad_target, grad_source
