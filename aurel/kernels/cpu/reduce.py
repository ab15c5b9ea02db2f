"""Parts of the reductions over the rows that a list names, and of their gradients.

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
def add_multiple(out, row, factor):
    """Add a multiple of one row to another."""
    for c in range(len(out)):
        out[c] += factor * row[c]


@uncounted
def add_to_winners(out, base, grad, winner, channels):
    """Add each channel of one row of gradients to the node that won it."""
    for c in range(channels):
        out[base + winner[c] * channels + c] += grad[c]
