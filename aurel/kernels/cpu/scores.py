"""Scores of pairs of nodes; each pair is one sum over the channels, in one order for all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aurel.kernels.cpu.compiler import kernel, uncounted
from aurel.kernels.cpu.pair_sums import (
    SIDE,
    tile_absolutes,
    tile_products,
    tile_squares,
    triangle_absolutes,
    triangle_products,
    triangle_squares,
)
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.vector_math import prefer_wide_vectors

METRICS = {"l2": 0, "l1": 1, "cosine": 2, "dot": 3}
L2, L1, COSINE, DOT = 0, 1, 2, 3


@uncounted
def cosine_score(product, square):
    """Return -cos |cos| |x|^2 from x . s and |s|^2, which has the order of the distance.

    What is infinite becomes +inf.
    """
    score = -product * abs(product) / square
    return abs(score) if abs(score) == np.inf else score


def _sums_by_metric(squares: Any, absolutes: Any, products: Any) -> Any:
    """Return a function that writes the sums of a tile of pairs that a metric needs."""

    @uncounted
    def sums(x, i, i_end, y, j, j_end, channels, metric, tile):
        if metric == L2:
            squares(x, i, i_end, y, j, j_end, channels, tile)
        elif metric == L1:
            absolutes(x, i, i_end, y, j, j_end, channels, tile)
        else:
            products(x, i, i_end, y, j, j_end, channels, tile)

    return sums


_tile_sums = _sums_by_metric(tile_squares, tile_absolutes, tile_products)
_triangle_sums = _sums_by_metric(triangle_squares, triangle_absolutes, triangle_products)


@kernel
def sums_within(x, first, nodes, channels, metric, out):
    """Fill out[i, j] for all pairs of nodes of one graph, each pair computed once."""
    prefer_wide_vectors()
    tile = np.empty(SIDE * SIDE, x.dtype)
    end = first + nodes
    for i in range(0, nodes, SIDE):
        height = min(SIDE, nodes - i)
        for j in range(i, nodes, SIDE):
            if i == j:
                _triangle_sums(x, first + i, end, x, first + j, end, channels, metric, tile)
            else:
                _tile_sums(x, first + i, end, x, first + j, end, channels, metric, tile)
            width = min(SIDE, nodes - j)
            for a in range(height):
                for b in range(a if i == j else 0, width):
                    value = tile[SIDE * a + b]
                    out[i + a, j + b] = value
                    out[j + b, i + a] = value


@kernel
def sums_between(x, y, row, rows, first, nodes, channels, metric, out):
    """Fill out[i, j] for `rows` rows of x from `row` on, and `nodes` rows of y from `first` on."""
    prefer_wide_vectors()
    tile = np.empty(SIDE * SIDE, x.dtype)
    for i in range(0, rows, SIDE):
        height = min(SIDE, rows - i)
        for j in range(0, nodes, SIDE):
            _tile_sums(x, row + i, row + rows, y, first + j, first + nodes, channels, metric, tile)
            for a in range(height):
                for b in range(min(SIDE, nodes - j)):
                    out[i + a, j + b] = tile[SIDE * a + b]


@ranged
def scale_nodes(start, stop, x, channels, scaled, squares):
    """Scale nodes by a power of two that brings the largest channel to about 1, and square them."""
    prefer_wide_vectors()
    tile = np.empty(SIDE * SIDE, x.dtype)
    for i in range(start, stop):
        row = i * channels
        node, out = x[row : row + channels], scaled[row : row + channels]
        largest = x.dtype.type(0)
        for c in range(channels):
            largest = max(largest, abs(node[c]))
        exponent = 0
        if 0 < largest < np.inf:
            exponent = math.frexp(largest)[1]
        half = exponent // 2  # twice, since 2 ** -exponent may overflow
        first = x.dtype.type(math.ldexp(1.0, -half))
        second = x.dtype.type(math.ldexp(1.0, half - exponent))
        for c in range(channels):
            out[c] = (node[c] * first) * second
        tile_products(scaled, i, i + 1, scaled, i, i + 1, channels, tile)
        squares[i] = tile[0]
