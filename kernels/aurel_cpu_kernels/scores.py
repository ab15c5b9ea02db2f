"""Scores of pairs of nodes; each pair is one sum over the channels, in one order for all pairs.

Loops run over slices: over ``x[start + c]`` the compiler makes no vector instructions.

Pairs are computed four at a time, two nodes by two, by one function: a node that has no partner is
its own. So equal nodes have bit-equal scores, and the score of (i, j) is that of (j, i).
"""

from __future__ import annotations

import math

import numpy as np

from aurel_cpu_kernels.compiler import inlined, kernel

METRICS = {"l2": 0, "l1": 1, "cosine": 2, "dot": 3}
L2, L1, COSINE, DOT = 0, 1, 2, 3


@inlined
def squared_distances(x, y, i0, i1, j0, j1, channels):
    """Return the sums of squared differences of rows i0, i1 of x and j0, j1 of y."""
    zero = x.dtype.type(0)
    s00 = zero
    s01 = zero
    s10 = zero
    s11 = zero
    xa, xb = x[i0 : i0 + channels], x[i1 : i1 + channels]
    yp, yq = y[j0 : j0 + channels], y[j1 : j1 + channels]
    for c in range(channels):
        a = xa[c]
        b = xb[c]
        p = yp[c]
        q = yq[c]
        d = p - a
        s00 += d * d
        d = q - a
        s01 += d * d
        d = p - b
        s10 += d * d
        d = q - b
        s11 += d * d
    return s00, s01, s10, s11


@inlined
def absolute_distances(x, y, i0, i1, j0, j1, channels):
    """Return the sums of absolute differences of rows i0, i1 of x and j0, j1 of y."""
    zero = x.dtype.type(0)
    s00 = zero
    s01 = zero
    s10 = zero
    s11 = zero
    xa, xb = x[i0 : i0 + channels], x[i1 : i1 + channels]
    yp, yq = y[j0 : j0 + channels], y[j1 : j1 + channels]
    for c in range(channels):
        a = xa[c]
        b = xb[c]
        p = yp[c]
        q = yq[c]
        s00 += abs(p - a)
        s01 += abs(q - a)
        s10 += abs(p - b)
        s11 += abs(q - b)
    return s00, s01, s10, s11


@inlined
def products(x, y, i0, i1, j0, j1, channels):
    """Return the sums of products of rows i0, i1 of x and j0, j1 of y."""
    zero = x.dtype.type(0)
    s00 = zero
    s01 = zero
    s10 = zero
    s11 = zero
    xa, xb = x[i0 : i0 + channels], x[i1 : i1 + channels]
    yp, yq = y[j0 : j0 + channels], y[j1 : j1 + channels]
    for c in range(channels):
        a = xa[c]
        b = xb[c]
        p = yp[c]
        q = yq[c]
        s00 += a * p
        s01 += a * q
        s10 += b * p
        s11 += b * q
    return s00, s01, s10, s11


@inlined
def four_sums(x, y, i0, i1, j0, j1, channels, metric):
    """Return the sums of four pairs of rows: squares, absolute values or products."""
    if metric == L2:
        return squared_distances(x, y, i0, i1, j0, j1, channels)
    if metric == L1:
        return absolute_distances(x, y, i0, i1, j0, j1, channels)
    return products(x, y, i0, i1, j0, j1, channels)


@kernel
def sums_within(x, first, nodes, channels, metric, out):
    """Fill out[i, j] for all pairs of nodes of one graph, each computed once."""
    for i in range(0, nodes, 2):
        i1 = min(i + 1, nodes - 1)
        for j in range(i, nodes, 2):
            j1 = min(j + 1, nodes - 1)
            s00, s01, s10, s11 = four_sums(
                x,
                x,
                (first + i) * channels,
                (first + i1) * channels,
                (first + j) * channels,
                (first + j1) * channels,
                channels,
                metric,
            )
            out[i, j] = s00
            out[i, j1] = s01
            out[i1, j] = s10
            out[i1, j1] = s11
            out[j, i] = s00
            out[j1, i] = s01
            out[j, i1] = s10
            out[j1, i1] = s11


@kernel
def sums_between(x, y, row, rows, first, nodes, channels, metric, out):
    """Fill out[i, j] for `rows` rows of x from `row` on, and `nodes` rows of y from `first` on."""
    for i in range(0, rows, 2):
        i1 = min(i + 1, rows - 1)
        for j in range(0, nodes, 2):
            j1 = min(j + 1, nodes - 1)
            s00, s01, s10, s11 = four_sums(
                x,
                y,
                (row + i) * channels,
                (row + i1) * channels,
                (first + j) * channels,
                (first + j1) * channels,
                channels,
                metric,
            )
            out[i, j] = s00
            out[i, j1] = s01
            out[i1, j] = s10
            out[i1, j1] = s11


@kernel
def scale_nodes(start, stop, x, channels, scaled, squares):
    """Scale nodes by a power of two that brings the largest channel to about 1, and square them."""
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
        squares[i] = products(scaled, scaled, row, row, row, row, channels)[0]
