"""Choice of the smallest scores of a row: nearest first, ties to the lowest index."""

from __future__ import annotations

import numpy as np

from aurel_cpu_kernels.compiler import inlined, kernel
from aurel_cpu_kernels.scores import COSINE, DOT

FEW = 64  # candidates up to which they are inserted into a sorted list


@inlined
def finish_scores(sums, nodes, metric, square, squares, first, bias, bias_row, scores):
    """Turn the sums of one row into its scores; NaN, and infinities but of products, are +inf.

    Args:
        sums, nodes: of the row, for that many sources.
        metric: of the sums.
        square, squares, first: for the cosine, |x_i|^2, all |s_j|^2, and the first source's place.
        bias, bias_row: flat, and the place of the row's first; an empty array for none.
        scores: the result.
    """
    one = sums.dtype.type(1)
    tiny = sums.dtype.type(1e-30)
    for j in range(nodes):
        s = sums[j]
        if metric == COSINE:
            q = max(squares[first + j], tiny)
            if bias.size == 0:
                s = -s * abs(s) / q
                if abs(s) == np.inf:
                    s = abs(s)
            else:
                s = one - s / np.sqrt(max(square, tiny) * q)
        elif metric == DOT:
            s = -s
        if bias.size > 0:
            s += bias[bias_row + j]
        scores[j] = np.inf if s != s else s


@inlined
def insert_smallest(scores, nodes, valid, first, excluded, rank, best, chosen):
    """Write the `rank` smallest scores' places into `chosen`, ascending, and return their number.

    Args:
        scores, nodes: of the row.
        valid, first: which sources exist, and the place of the first; an empty array for all.
        excluded: a source that may not be chosen, or -1.
        rank: at most so many.
        best, chosen: scratch and result, of `rank` places.
    """
    found = 0
    for j in range(nodes):
        if j == excluded or (valid.size > 0 and not valid[first + j]):
            continue
        s = scores[j]
        if found == rank and not s < best[rank - 1]:
            continue
        p = found if found < rank else rank - 1
        if found < rank:
            found += 1
        while p > 0 and best[p - 1] > s:
            best[p] = best[p - 1]
            chosen[p] = chosen[p - 1]
            p -= 1
        best[p] = s
        chosen[p] = j
    return found


@kernel
def sort_smallest(scores, nodes, valid, first, excluded, rank, chosen):
    """Do what `insert_smallest` does, for many candidates."""
    found = 0
    order = np.argsort(scores[:nodes], kind="mergesort")
    for j in order:
        if found == rank:
            break
        if j == excluded or (valid.size > 0 and not valid[first + j]):
            continue
        chosen[found] = j
        found += 1
    return found


@inlined
def choose(scores, nodes, valid, first, excluded, rank, best, chosen):
    """Write the places of the `rank` smallest scores into `chosen`, and return their number."""
    if rank <= FEW:
        return insert_smallest(scores, nodes, valid, first, excluded, rank, best, chosen)
    return sort_smallest(scores, nodes, valid, first, excluded, rank, chosen)
