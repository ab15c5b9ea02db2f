"""Nearest sources in large graphs: candidates by products of matrices, then exact scores of these.

A row in which the rounding of the products might hide a nearer source is computed in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aurel_cpu_kernels.arrays import Array, flat
from aurel_cpu_kernels.compiler import uncounted
from aurel_cpu_kernels.pair_sums import LISTED
from aurel_cpu_kernels.problem import Problem
from aurel_cpu_kernels.ranges import ranged
from aurel_cpu_kernels.scores import COSINE, L2, METRICS, sums_between, sums_of_chosen
from aurel_cpu_kernels.selection import choose, finish_scores, scratch_of
from aurel_cpu_kernels.threads import run
from aurel_cpu_kernels.vector_math import prefer_wide_vectors

_SPARE = 4  # candidates beyond the neighbors
_PRODUCTS = 2**21  # at a time


@dataclass
class _Block:
    """Rows of graphs of one size, which follow each other; products are of all with all sources."""

    graph: int  # the first
    graphs: int
    row: int  # the first of the first graph, within that graph
    rows: int  # of each graph


def search_by_products(
    problem: Problem,
    graphs: Array,
    x: Array,
    y: Array,
    squares: Array,
    source_squares: Array,
    neighbors: Array,
) -> None:
    """Write the neighbors of all nodes of some graphs.

    Args:
        problem: the search.
        graphs: numbers of the graphs.
        x, y: its nodes and sources, scaled for the cosine.
        squares, source_squares: their squared norms for the cosine.
        neighbors: result, K a node.
    """
    for block in _blocks(problem, graphs):
        first_row = problem.rows[block.graph, 0]
        first_source = problem.sources[block.graph, 0]
        count = int(problem.sources[block.graph, 1])
        size = int(problem.rows[block.graph, 1])
        targets = _stack(x, first_row, block.graphs, size, problem.channels)
        targets = targets[:, block.row : block.row + block.rows]
        sources = _stack(y, first_source, block.graphs, count, problem.channels)
        spread = sources
        if problem.metric == "l2":
            center = sources.mean(1, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
            targets, spread = targets - center, sources - center
        norms = spread.square().sum(2)
        # Infinite and NaN nodes are chosen by exact scores; here they must not spoil the bound.
        largest = torch.stack((sources.square().sum(2), norms)).nan_to_num(0.0, 0.0, 0.0).amax(2)
        run(
            choose_candidates,
            block.graphs * block.rows,
            2 * count * block.graphs * block.rows,
            flat(torch.bmm(targets, spread.mT)),
            flat(targets.square().sum(2)),
            flat(norms),
            flat(largest),
            x,
            y,
            squares,
            source_squares,
            problem.channels,
            block.graph,
            block.graphs,
            block.row,
            block.rows,
            problem.rows,
            problem.sources,
            problem.valid,
            problem.source_valid,
            problem.bias,
            problem.bias_stride,
            METRICS[problem.metric],
            problem.k,
            problem.dilation,
            problem.loop,
            problem.local,
            neighbors,
        )


def _stack(x: Array, first: int, graphs: int, nodes: int, channels: int) -> Tensor:
    """Return the nodes of graphs that follow each other, (G, N, C)."""
    rows = x[first * channels : (first + graphs * nodes) * channels]
    return torch.from_numpy(rows).view(graphs, nodes, channels)


def _blocks(problem: Problem, graphs: Array) -> Iterator[_Block]:
    """Cut the graphs into blocks whose products fit into a cache."""
    shapes = np.stack((problem.rows[graphs, 1], problem.sources[graphs, 1], graphs), 1)
    ends = np.flatnonzero((np.diff(shapes, axis=0) != (0, 0, 1)).any(1)) + 1
    for run_of_graphs in np.split(shapes, ends):
        rows, sources, _ = (int(each) for each in run_of_graphs[0])
        together = max(1, _PRODUCTS // max(1, rows * sources))
        height = max(1, min(rows, _PRODUCTS // sources))
        for start in range(0, len(run_of_graphs), together):
            count = min(together, len(run_of_graphs) - start)
            for row in range(0, rows, height):
                yield _Block(int(run_of_graphs[start, 2]), count, row, min(height, rows - row))


@uncounted
def approximate_scores(products, norms, square, count, metric, bias, bias_row, scores):
    """Write approximate scores of one row; for l2, without |x_i|^2."""
    two = scores.dtype.type(2)
    tiny = scores.dtype.type(1e-30)
    if metric == L2:
        for j in range(count):
            scores[j] = norms[j] - two * products[j]
    elif metric == COSINE and bias.size == 0:
        for j in range(count):
            scores[j] = -products[j] * abs(products[j]) / max(norms[j], tiny)
    elif metric == COSINE:
        for j in range(count):
            scores[j] = -products[j] / np.sqrt(max(square, tiny) * max(norms[j], tiny))
    else:
        for j in range(count):
            scores[j] = -products[j]
    if bias.size > 0:
        row = bias[bias_row : bias_row + count]
        for j in range(count):
            scores[j] += row[j]


@uncounted
def rounding_bound(square, centered, spread, largest, last, channels, metric, bias_size, eps):
    """Return how far approximate and exact scores of a row may lie apart, both ways.

    Args:
        square: |x_i|^2, without the center for l2.
        centered, spread: the largest |y_j|^2 with and without the center.
        largest: the larger of the two, and of `square`.
        last: the largest approximate score of a candidate.
        channels, metric: of the search.
        bias_size: the largest absolute bias of the candidates.
        eps: of the dtype.
    """
    factor = 2 * (channels + 8) * eps
    if metric == L2:
        distance = abs(last) + square
        return factor * (square + spread + bias_size) + 8 * eps * np.sqrt(largest * distance)
    if metric == COSINE:
        return factor * (square + 1 + bias_size)
    return factor * (np.sqrt(square * centered) + bias_size)


@ranged
def choose_candidates(
    start,
    stop,
    products,
    target_squares,
    norms,
    largest,
    x,
    y,
    squares,
    source_squares,
    channels,
    graph0,
    graphs,
    row0,
    height,
    rows,
    sources,
    valid,
    source_valid,
    bias,
    bias_stride,
    metric,
    k,
    dilation,
    loop,
    local,
    neighbors,
):
    """Write the neighbors of some rows of a block."""
    count = sources[graph0, 1]
    rank = k * dilation
    wanted = rank + _SPARE
    eps = np.finfo(x.dtype).eps
    scores = np.empty(count, x.dtype)
    sums = np.empty((2, count), x.dtype)
    scratch = scratch_of(scores, wanted)
    chosen = np.empty(wanted, np.int64)
    few_sums = np.empty((1, wanted), x.dtype)
    listed, some = np.empty(LISTED, np.int64), np.empty(LISTED, x.dtype)
    prefer_wide_vectors()
    few_squares = np.empty(wanted, x.dtype)
    few_bias = np.empty(wanted if bias.size > 0 else 0, x.dtype)
    few_scores = np.empty(wanted, x.dtype)
    few_chosen = np.empty(wanted, np.int64)
    all_valid = np.empty(0, np.bool_)
    for each in range(start, stop):
        graph = graph0 + each // height
        itself = row0 + each % height
        row = rows[graph, 0] + itself
        first = sources[graph, 0]
        place = row * k
        found = 0
        if valid.size == 0 or valid[row]:
            excluded = -1 if loop else itself
            bias_row = graph * bias_stride + itself * count
            square = target_squares[each]
            own_square = squares[row] if squares.size > 0 else x.dtype.type(0)
            of_graph = (graph - graph0) * count
            approximate_scores(
                products[each * count : (each + 1) * count],
                norms[of_graph : of_graph + count],
                own_square,
                count,
                metric,
                bias,
                bias_row,
                scores,
            )
            # A score that is not a number hides where its source belongs.
            doubtful = not (square < np.inf)
            for j in range(count):
                exists = source_valid.size == 0 or source_valid[first + j]
                doubtful = doubtful or (exists and not abs(scores[j]) < np.inf)
            if not doubtful:
                found = choose(
                    scores,
                    count,
                    source_valid,
                    first,
                    excluded,
                    wanted,
                    scratch,
                    chosen,
                )
                chosen[:found].sort()
                last = -np.inf
                bias_size = x.dtype.type(0)
                for c in range(found):
                    last = max(last, scores[chosen[c]])
                    if bias.size > 0:
                        few_bias[c] = bias[bias_row + chosen[c]]
                        bias_size = max(bias_size, abs(few_bias[c]))
                sums_of_chosen(
                    x, y, row, first, chosen, found, channels, metric, listed, some, few_sums
                )
                if source_squares.size > 0:
                    for c in range(found):
                        few_squares[c] = source_squares[first + chosen[c]]
                finish_scores(
                    few_sums, 0, found, metric, own_square, few_squares, 0, few_bias, 0, few_scores
                )
                kept = choose(
                    few_scores,
                    found,
                    all_valid,
                    0,
                    -1,
                    rank,
                    scratch,
                    few_chosen,
                )
                if found == wanted:
                    centered = largest[graph - graph0]
                    spread = largest[graphs + graph - graph0]
                    bound = rounding_bound(
                        square,
                        centered,
                        spread,
                        max(max(centered, spread), square),
                        last,
                        channels,
                        metric,
                        bias_size,
                        eps,
                    )
                    if metric == L2:
                        last += square
                    elif metric == COSINE and bias.size > 0:
                        last += 1
                    doubtful = not last - bound > few_scores[few_chosen[kept - 1]]
                found = kept
                for c in range(kept):
                    few_chosen[c] = chosen[few_chosen[c]]
            if doubtful:
                sums_between(x, y, row, 1, first, count, channels, metric, sums)
                finish_scores(
                    sums,
                    0,
                    count,
                    metric,
                    own_square,
                    source_squares,
                    first,
                    bias,
                    bias_row,
                    scores,
                )
                found = choose(
                    scores,
                    count,
                    source_valid,
                    first,
                    excluded,
                    rank,
                    scratch,
                    few_chosen,
                )
        offset = 0 if local else first
        for s in range(k):
            at = s * dilation
            neighbors[place + s] = few_chosen[at] + offset if at < found else -1
