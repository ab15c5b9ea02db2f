"""Nearest sources of the nodes of many graphs, dense or ragged.

Scores of all pairs are sums of differences that stay in registers. Products of matrices, which need
their rounding corrected, were no faster. All rows of a graph lie one after the other in x, and all
its sources in y.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from aurel.kernels.cpu.arrays import Array
from aurel.kernels.cpu.column_selection import choose_in_columns
from aurel.kernels.cpu.compiler import inner
from aurel.kernels.cpu.problem import Problem, dense_rows
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.scores import METRICS, scale_nodes, sums_between, sums_within
from aurel.kernels.cpu.selection import MANY, MOST, choose, finish_scores, scratch_of
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import lanes_in

_SMALL, _LARGE = 64, 1024  # up to _SMALL nodes a graph is one part; above _LARGE it never is
_ROWS = 16  # rows of a part that is not a whole graph


def prepare(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """Return x and y, scaled for the cosine, and their squared norms (empty for other metrics)."""
    if problem.metric != "cosine":
        none = np.empty(0, problem.x.dtype)
        return problem.x, problem.y, none, none
    x, squares = _scaled(problem.x, problem.rows, problem.channels)
    if problem.y is problem.x:
        return x, x, squares, squares
    y, source_squares = _scaled(problem.y, problem.sources, problem.channels)
    return x, y, squares, source_squares


def _scaled(x: Array, rows: Array, channels: int) -> tuple[Array, Array]:
    nodes = int(rows.sum(1).max(initial=0))  # first row and number of the last graph
    scaled, squares = np.empty_like(x), np.empty(nodes, x.dtype)
    run(scale_nodes, nodes, 4 * len(x), x, channels, scaled, squares)
    return scaled, squares


def divide(problem: Problem) -> tuple[Array, bool]:
    """Return the parts of the work, (P, 3), and whether these are whole graphs.

    A part is the number of a graph, the first row within it, and the number of rows.
    """
    threads = torch.get_num_threads()
    if problem.local and len(problem.rows) > 0:  # a dense batch: all graphs are alike
        nodes, count = int(problem.rows[0, 1]), int(problem.sources[0, 1])
        return _divide_dense(len(problem.rows), nodes, count, threads)
    return _parts(problem.rows, problem.sources, threads)


@lru_cache(maxsize=64)
def _divide_dense(batch: int, nodes: int, count: int, threads: int) -> tuple[Array, bool]:
    return _parts(dense_rows(batch, nodes), dense_rows(batch, count), threads)


def _parts(rows: Array, sources: Array, threads: int) -> tuple[Array, bool]:
    """Return whole graphs, whose pairs are computed once, unless threads would lack work."""
    counts, pairs = rows[:, 1], rows[:, 1] * sources[:, 1]
    largest = max(counts.max(initial=0), sources[:, 1].max(initial=0))
    shared = pairs.max(initial=0) * threads <= pairs.sum()
    if largest <= _SMALL or (shared and largest <= _LARGE):
        return np.stack((np.arange(len(rows)), np.zeros_like(counts), counts), 1), True
    blocks = -(-counts // _ROWS)
    graph = np.repeat(np.arange(len(rows)), blocks)
    first = (np.arange(len(graph)) - np.repeat(np.cumsum(blocks) - blocks, blocks)) * _ROWS
    return np.stack((graph, first, np.minimum(_ROWS, counts[graph] - first)), 1), False


@inner
def scratch_for(start, stop, search):
    """Return scratch arrays for some parts."""
    nodes_of, (_, sources, table, _), _, (_, k, dilation, _, _) = search
    x = nodes_of[0]
    most, height = 1, 1
    for part in range(start, stop):
        most = max(most, sources[table[part, 0], 1])
        height = max(height, table[part, 2])
    lanes = lanes_in(x)
    width = (most + lanes - 1) // lanes * lanes
    rank = k * dilation
    scores = np.empty(width, x.dtype)
    chosen = np.empty(rank, np.int64)
    few = min(rank, MOST) * lanes
    lists = np.empty(few, x.dtype), np.empty(few, np.int32)
    return np.empty((height, width), x.dtype), scores, chosen, scratch_of(scores, rank), lists


@inner
def search_part(part, search, scratch, neighbors):
    """Write the neighbors of the nodes of one part; `search` is the result of `describe`."""
    nodes_of, parts, exists, choice = search
    x, y, own, squares, source_squares, channels = nodes_of
    rows, sources, table, whole = parts
    valid, source_valid, bias, bias_stride = exists
    metric, k, dilation, loop, local = choice
    sums, scores, chosen, sorting, (best, lists) = scratch
    graph = table[part, 0]
    row = rows[graph, 0] + table[part, 1]
    size = table[part, 2]
    first = sources[graph, 0]
    nodes = sources[graph, 1]
    if own and whole:
        sums_within(x, row, nodes, channels, metric, sums)
    else:
        sums_between(x, y, row, size, first, nodes, channels, metric, sums)
    offset = 0 if local else first
    rank = k * dilation
    lanes = lanes_in(x)
    together = own and whole and bias.size == 0 and nodes <= MANY and rank <= MOST
    for i in range(size):
        lane = i % lanes
        if together and lane == 0:
            choose_in_columns(
                sums,
                i,
                nodes,
                metric,
                squares,
                source_valid,
                first,
                loop,
                rank,
                scores,
                best,
                lists,
            )
        found = 0
        itself = table[part, 1] + i
        if valid.size == 0 or valid[row + i]:
            if together and best[(rank - 1) * lanes + lane] < np.inf:
                found = rank
                for s in range(rank):
                    chosen[s] = lists[s * lanes + lane]
            else:
                square = squares[row + i] if squares.size > 0 else x.dtype.type(0)
                bias_row = graph * bias_stride + itself * nodes
                finish_scores(
                    sums, i, nodes, metric, square, source_squares, first, bias, bias_row, scores
                )
                excluded = -1 if loop else itself
                found = choose(scores, nodes, source_valid, first, excluded, rank, sorting, chosen)
        place = (row + i) * k
        for s in range(k):
            rank_of = s * dilation
            neighbors[place + s] = chosen[rank_of] + offset if rank_of < found else -1


@ranged
def search_parts(start, stop, search, neighbors):
    """Write the neighbors of the nodes of some parts."""
    scratch = scratch_for(start, stop, search)
    for part in range(start, stop):
        search_part(part, search, scratch, neighbors)


def describe(
    problem: Problem, prepared: tuple[Array, Array, Array, Array], table: Array, whole: bool
) -> tuple[Any, ...]:
    """Return a search and its parts as the tuple that kernels take."""
    x, y, squares, source_squares = prepared
    choice = (METRICS[problem.metric], problem.k, problem.dilation, problem.loop, problem.local)
    return (
        (x, y, problem.y is problem.x, squares, source_squares, problem.channels),
        (problem.rows, problem.sources, table, whole),
        (problem.valid, problem.source_valid, problem.bias, problem.bias_stride),
        choice,
    )


def search(problem: Problem, neighbors: Array) -> None:
    """Write the neighbors of all nodes into a flat array, K a node."""
    prepared = prepare(problem)
    table, whole = divide(problem)
    described = describe(problem, prepared, table, whole)
    run(search_parts, len(table), problem.work(), described, neighbors)
