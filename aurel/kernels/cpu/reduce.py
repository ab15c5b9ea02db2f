"""Maxima, sums and means over the rows that a list names, and their gradients.

A slot whose index is out of range is empty. NaN counts as the largest value, so it is not lost.
Loops run over slices, since the compiler does not vectorize loops over ``x[start + c]``.
"""

from __future__ import annotations

import numpy as np

from aurel.kernels.cpu.compiler import uncounted


@uncounted
def pack(lists, place, slots, nodes, packed):
    """Write the listed nodes without the empty slots, and return their number."""
    found = 0
    for s in range(slots):
        j = lists[place + s]
        if 0 <= j < nodes:
            packed[found] = j
            found += 1
    return found


@uncounted
def is_finite(x):
    """Return whether an array holds neither NaN nor infinities."""
    zero = x.dtype.type(0)
    total = zero
    for i in range(len(x)):
        total += x[i] * zero
    return total == 0


@uncounted
def maximum(x, base, packed, found, channels, out):
    """Write the maximum of finite rows, four at a time."""
    last = packed[found - 1]
    for s in range(0, found, 4):
        r0 = x[base + packed[s] * channels :][:channels]
        r1 = x[base + (packed[s + 1] if s + 1 < found else last) * channels :][:channels]
        r2 = x[base + (packed[s + 2] if s + 2 < found else last) * channels :][:channels]
        r3 = x[base + (packed[s + 3] if s + 3 < found else last) * channels :][:channels]
        if s == 0:
            for c in range(channels):
                u = r1[c] if r1[c] > r0[c] else r0[c]
                v = r3[c] if r3[c] > r2[c] else r2[c]
                out[c] = v if v > u else u
        else:
            for c in range(channels):
                u = r1[c] if r1[c] > r0[c] else r0[c]
                v = r3[c] if r3[c] > r2[c] else r2[c]
                u = v if v > u else u
                out[c] = u if u > out[c] else out[c]


@uncounted
def maximum_and_winner(x, base, packed, found, channels, out, won):
    """Write the maximum of finite rows, and which of them attains it first."""
    first = x[base + packed[0] * channels :][:channels]
    j = np.int32(packed[0])
    for c in range(channels):
        out[c] = first[c]
        won[c] = j
    for s in range(1, found, 3):
        ja = packed[s]
        jb = packed[s + 1] if s + 1 < found else ja
        jc = packed[s + 2] if s + 2 < found else ja
        take_larger(
            x[base + ja * channels :][:channels],
            x[base + jb * channels :][:channels],
            x[base + jc * channels :][:channels],
            np.int32(ja),
            np.int32(jb),
            np.int32(jc),
            out,
            won,
        )


@uncounted
def take_larger(ra, rb, rc, ja, jb, jc, out, won):
    """Replace the maxima by larger values of three rows, one after the other."""
    for c in range(len(out)):
        best = out[c]
        j = won[c]
        t = ra[c]
        j = ja if t > best else j
        best = t if t > best else best
        t = rb[c]
        j = jb if t > best else j
        best = t if t > best else best
        t = rc[c]
        j = jc if t > best else j
        best = t if t > best else best
        out[c] = best
        won[c] = j


@uncounted
def any_maximum(x, base, packed, found, channels, out, won):
    """Write the maximum of rows that may hold NaN, and which of them attains it first."""
    for c in range(channels):
        best = x[base + packed[0] * channels + c]
        j = packed[0]
        for s in range(1, found):
            t = x[base + packed[s] * channels + c]
            if t > best or (t != t and best == best):
                best = t
                j = packed[s]
        out[c] = best
        won[c] = j


@uncounted
def fill(out, value):
    """Set all elements to one value."""
    for c in range(len(out)):
        out[c] = value


@uncounted
def reduce_maximum(x, base, packed, found, channels, finite, keep, won, out, winner):
    """Write the maximum of one row and, if `keep`, its winners; 0 for an empty list."""
    if found == 0:
        fill(out, 0)
        fill(winner, 0)
        return
    if not finite:
        any_maximum(x, base, packed, found, channels, out, won)
    elif keep:
        maximum_and_winner(x, base, packed, found, channels, out, won)
    else:
        maximum(x, base, packed, found, channels, out)
    for c in range(len(winner)):
        winner[c] = won[c]


@uncounted
def reduce_sum(x, base, packed, found, channels, divisor, out):
    """Write the sum of the rows divided by a number."""
    if found == 0:
        fill(out, 0)
        return
    whole = found - found % 4
    for s in range(0, whole, 4):
        r0 = x[base + packed[s] * channels :][:channels]
        r1 = x[base + (packed[s + 1]) * channels :][:channels]
        r2 = x[base + (packed[s + 2]) * channels :][:channels]
        r3 = x[base + (packed[s + 3]) * channels :][:channels]
        if s == 0:
            for c in range(channels):
                out[c] = (r0[c] + r1[c]) + (r2[c] + r3[c])
        else:
            for c in range(channels):
                out[c] += (r0[c] + r1[c]) + (r2[c] + r3[c])
    for s in range(whole, found):
        row = x[base + packed[s] * channels :][:channels]
        if s == 0:
            for c in range(channels):
                out[c] = row[c]
        else:
            for c in range(channels):
                out[c] += row[c]
    if divisor != 1:
        factor = x.dtype.type(1) / x.dtype.type(divisor)
        for c in range(channels):
            out[c] *= factor


@uncounted
def add_multiple(out, row, factor):
    """Add a multiple of one row to another."""
    for c in range(len(out)):
        out[c] += factor * row[c]


@uncounted
def add_to_winners(out, base, grad, winner, channels):
    """Add each channel of one row of gradients to the node that won it."""
    for c in range(channels):
        out[base + winner[c] * channels + c] += grad[c]
