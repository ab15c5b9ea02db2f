"""Maxima, sums and means over the rows that a list names, and their gradients.

A slot whose index is out of range is empty. NaN counts as the largest value, so it is not lost.
Loops run over slices, since the compiler does not vectorize loops over ``x[start + c]``.
"""

from __future__ import annotations

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
def is_empty(lists, place, slots, nodes):
    """Return whether a list names no node."""
    found = False
    for s in range(slots):
        found |= 0 <= lists[place + s] < nodes
    return not found


@uncounted
def is_finite(x):
    """Return whether an array holds neither NaN nor infinities."""
    zero = x.dtype.type(0)
    total = zero
    for i in range(len(x)):
        total += x[i] * zero
    return total == 0


@uncounted
def fill(out, value):
    """Set all elements to one value."""
    for c in range(len(out)):
        out[c] = value


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
