"""Matrices of `pair_pool` whose columns are the querying tokens of several nodes.

A matrix has a row for each token of the target node, and a column for each token of the sources of
a group, source after source. Softmax then runs down the columns, over whole vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aurel.kernels.cpu.compiler import inlined, kernel
from aurel.kernels.cpu.rows import row_part
from aurel.kernels.cpu.tile_products import (
    ROWS,
    SIDE,
    VECTOR_BYTES,
    VECTORS,
    add_row_products,
    add_tile_product,
)
from aurel.kernels.cpu.vector_math import exp_of_nonpositive, prefer_wide_vectors

_COLUMNS = 1536  # most columns of a group, so that its matrices stay in the cache
_PART = 128  # columns whose softmax is computed together


def group_size(nodes: int, tokens: int) -> int:
    """Return how many sources are computed together."""
    groups = max(1, -(-nodes * tokens // _COLUMNS))
    return max(1, -(-nodes // groups))


def stride_of(columns: int, dtype: np.dtype[Any]) -> int:
    """Return the stride of rows: a multiple of a panel, by which rows use different cache sets."""
    lanes = VECTOR_BYTES // dtype.itemsize
    stride = -(-columns // (VECTORS * lanes)) * VECTORS * lanes
    return stride + lanes if stride * dtype.itemsize % 1024 == 0 else stride


@inlined
def zeros(size, like):
    """Return an array of zeros that starts at a cache line, where vectors load fastest."""
    places = 64 // like.itemsize
    array = np.zeros(size + places, like.dtype)
    first = -(array.ctypes.data // like.itemsize) % places
    return array[first : first + size]


@inlined
def padded(rows):
    """Return the number of rows that tiles of both products touch."""
    return max((rows + ROWS - 1) // ROWS * ROWS, (rows + SIDE - 1) // SIDE * SIDE)


@inlined
def fill_transposed(x, start, rows, columns, out, stride):
    """Write the transpose of a matrix, which starts at `start` of x, into rows `stride` apart."""
    for column in range(columns):
        o = row_part(out, column, stride, 0, rows)
        for row in range(rows):
            o[row] = x[start + row * columns + column]


@kernel
def multiply(a, b, c, rows, steps, stride, lanes, clear):
    """Add a b to c, or set c to it; rows of a have `steps` places, those of b and c `stride`."""
    prefer_wide_vectors()
    for first in range(0, stride - lanes * VECTORS + 1, lanes * VECTORS):
        for row in range(0, rows, ROWS):
            place = row * stride + first
            add_tile_product(
                a, row * steps, steps, b, first, stride, c, place, stride, steps, clear
            )


@kernel
def multiply_rows(a, b, rows, columns, stride, lanes, symmetric, tiles, out):
    """Add to `out`, (rows, columns), the products of the rows of a and b; `tiles` is scratch."""
    prefer_wide_vectors()
    width = padded(columns)
    tiles[:] = 0
    for row in range(0, rows, SIDE):
        for column in range(row if symmetric else 0, columns, SIDE):
            place = row * width + column
            left, right = row * stride, column * stride
            add_row_products(
                a, left, stride, b, right, stride, tiles, place, width, stride // lanes
            )
    for row in range(rows):
        for column in range(columns):
            mirrored = symmetric and column < row
            place = column * width + row if mirrored else row * width + column
            out[row * columns + column] += tiles[place]


@kernel
def softmax_columns(x, rows, stride):
    """Take the softmax of each column of x."""
    prefer_wide_vectors()
    largest = np.empty(_PART, x.dtype)
    total = np.empty(_PART, x.dtype)
    for first in range(0, stride, _PART):
        width = min(_PART, stride - first)
        largest[:] = -np.inf
        total[:] = 0
        for row in range(rows):
            r = row_part(x, row, stride, first, width)
            for c in range(width):
                largest[c] = r[c] if r[c] > largest[c] else largest[c]
        for row in range(rows):
            r = row_part(x, row, stride, first, width)
            for c in range(width):
                r[c] = exp_of_nonpositive(r[c] - largest[c])
                total[c] += r[c]
        for c in range(width):
            total[c] = 1 / total[c]
        for row in range(rows):
            r = row_part(x, row, stride, first, width)
            for c in range(width):
                r[c] *= total[c]


@kernel
def differentiate_softmax(attention, grad, rows, stride):
    """Replace the gradient of the attention by that of the scores."""
    prefer_wide_vectors()
    mean = np.empty(_PART, grad.dtype)
    for first in range(0, stride, _PART):
        width = min(_PART, stride - first)
        mean[:] = 0
        for row in range(rows):
            a = row_part(attention, row, stride, first, width)
            g = row_part(grad, row, stride, first, width)
            for c in range(width):
                mean[c] += a[c] * g[c]
        for row in range(rows):
            a = row_part(attention, row, stride, first, width)
            g = row_part(grad, row, stride, first, width)
            for c in range(width):
                g[c] = a[c] * (g[c] - mean[c])
