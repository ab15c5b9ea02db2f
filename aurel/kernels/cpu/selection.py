"""Choice of the smallest scores of a row: nearest first, ties to the lowest index."""

from __future__ import annotations

import numpy as np

from aurel.kernels.cpu.compiler import kernel, uncounted
from aurel.kernels.cpu.scores import COSINE, DOT, cosine_score

FEW = 64  # candidates up to which they are inserted into a sorted list
LESS, MANY = 48, 64  # scores up to which each is compared with all others
GROUPS, MOST = 32, 24  # groups of a row of more, and candidates up to which these help


@uncounted
def finish_scores(sums, row, nodes, metric, square, squares, first, bias, bias_row, scores):
    """Compute the scores of one row from its sums; NaN, and infinite cosines, become +inf.

    Args:
        sums, row, nodes: sums[row] holds the sums of the row with `nodes` sources.
        metric: of the sums.
        square, squares, first: for the cosine, |x_i|^2, all |s_j|^2, and the index of the first
            source.
        bias, bias_row: flat, and the index of the row's first; an empty array for no bias.
        scores: written.
    """
    one = sums.dtype.type(1)
    tiny = sums.dtype.type(1e-30)
    for j in range(nodes):
        s = sums[row, j]
        if metric == COSINE:
            q = max(squares[first + j], tiny)
            if bias.size == 0:
                s = cosine_score(s, q)
            else:
                # Two roots: the product of the squares of two zero nodes would underflow to zero.
                s = one - s / (np.sqrt(max(square, tiny)) * np.sqrt(q))
        elif metric == DOT:
            s = -s
        if bias.size > 0:
            s += bias[bias_row + j]
        scores[j] = np.inf if s != s else s


@uncounted
def insert_smallest(scores, nodes, valid, first, excluded, rank, best, chosen):
    """Write the indices of the `rank` smallest scores to `chosen`, ascending; return their number.

    Args:
        scores, nodes: scores of the row, and their number.
        valid, first: which sources exist, and the index of the first; an empty array for all.
        excluded: a source that may not be chosen, or -1.
        rank: most indices to write.
        best, chosen: scratch and result, of size `rank`.
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


@uncounted
def sift(best, chosen, root, size):
    """Restore the order of a heap, the farthest candidate first, below index `root`."""
    while True:
        child = 2 * root + 1
        if child >= size:
            return
        other = child + 1
        if other < size and (
            best[other] > best[child]
            or (best[other] == best[child] and chosen[other] > chosen[child])
        ):
            child = other
        farther = best[child] > best[root] or (
            best[child] == best[root] and chosen[child] > chosen[root]
        )
        if not farther:
            return
        best[root], best[child] = best[child], best[root]
        chosen[root], chosen[child] = chosen[child], chosen[root]
        root = child


@uncounted
def heap_smallest(scores, nodes, valid, first, excluded, rank, best, chosen):
    """Select as `insert_smallest` does, by a heap, for many candidates."""
    found = 0
    for j in range(nodes):
        if j == excluded or (valid.size > 0 and not valid[first + j]):
            continue
        if found < rank:
            best[found] = scores[j]
            chosen[found] = j
            found += 1
            if found == rank:
                for root in range(rank // 2 - 1, -1, -1):
                    sift(best, chosen, root, rank)
        elif scores[j] < best[0]:
            best[0] = scores[j]
            chosen[0] = j
            sift(best, chosen, 0, rank)
    if found < rank:
        for root in range(found // 2 - 1, -1, -1):
            sift(best, chosen, root, found)
    for size in range(found - 1, 0, -1):
        best[0], best[size] = best[size], best[0]
        chosen[0], chosen[size] = chosen[size], chosen[0]
        sift(best, chosen, 0, size)
    return found


@uncounted
def count_smaller(values, count, ranks):
    """Write for each of `count` values how many are smaller, without a branch.

    The values are padded with +inf: loops of a fixed length become vector instructions.
    """
    for j in range(count, MANY):
        values[j] = np.inf
    if count <= LESS:
        for j in range(LESS):
            ranks[j] = 0
        for i in range(count):
            value = values[i]
            for j in range(LESS):
                ranks[j] += np.int32(value < values[j])
    else:
        for j in range(MANY):
            ranks[j] = 0
        for i in range(count):
            value = values[i]
            for j in range(MANY):
                ranks[j] += np.int32(value < values[j])


@uncounted
def place_ranked(places, count, rank, ranks, taken, chosen):
    """Write `places` of the `rank` smallest values, ascending, ties in order; return how many."""
    for r in range(rank):
        taken[r] = 0
    found = 0
    for j in range(count):
        r = ranks[j]
        if r < rank and places[j] >= 0:
            at = r + taken[r]
            taken[r] += 1
            if at < rank:
                chosen[at] = places[j]
                found += 1
    return found


@uncounted
def rank_few(scores, nodes, valid, first, excluded, rank, scratch, chosen):
    """Select as `insert_smallest` does, for up to MANY scores, by counting the smaller ones."""
    _, values, places, ranks, taken = scratch
    for j in range(nodes):
        allowed = j != excluded and (valid.size == 0 or valid[first + j])
        values[j] = scores[j] if allowed else np.inf
        places[j] = j if allowed else -1
    count_smaller(values, nodes, ranks)
    return place_ranked(places, nodes, rank, ranks, taken, chosen)


@uncounted
def rank_many(scores, nodes, valid, first, excluded, rank, scratch, chosen):
    """Select as `rank_few` does, for any number of scores, or return -1.

    The `rank`-th smallest of the minima of GROUPS groups is a bound: only scores up to it count.
    It returns -1 if the bound is infinite, or more than MANY scores do not exceed it.
    """
    _, values, places, ranks, taken = scratch
    if excluded >= 0:
        scores[excluded] = np.inf
    if valid.size > 0:
        for j in range(nodes):
            if not valid[first + j]:
                scores[j] = np.inf
    for g in range(GROUPS):
        values[g] = np.inf
    for start in range(0, nodes - GROUPS + 1, GROUPS):
        part = scores[start : start + GROUPS]
        for g in range(GROUPS):
            values[g] = part[g] if part[g] < values[g] else values[g]
    for j in range(nodes - nodes % GROUPS, nodes):
        g = j % GROUPS
        values[g] = min(values[g], scores[j])
    count_smaller(values, GROUPS, ranks)
    bound = scores.dtype.type(-np.inf)
    for g in range(GROUPS):  # the largest with fewer than `rank` smaller ones
        if ranks[g] < rank and values[g] > bound:
            bound = values[g]
    if bound == np.inf:
        return -1
    found = 0
    for j in range(nodes):
        if scores[j] <= bound:
            if found == MANY:
                return -1
            values[found] = scores[j]
            places[found] = j
            found += 1
    count_smaller(values, found, ranks)
    return place_ranked(places, found, rank, ranks, taken, chosen)


@uncounted
def choose_among_many(scores, nodes, valid, first, excluded, rank, scratch, chosen):
    """Select as `choose` does, for more than MANY scores."""
    if rank <= MOST:
        found = rank_many(scores, nodes, valid, first, excluded, rank, scratch, chosen)
        if found >= 0:
            return found
    if rank <= FEW:
        return insert_smallest(scores, nodes, valid, first, excluded, rank, scratch[0], chosen)
    return heap_smallest(scores, nodes, valid, first, excluded, rank, scratch[0], chosen)


@uncounted
def choose(scores, nodes, valid, first, excluded, rank, scratch, chosen):
    """Write the indices of the `rank` smallest scores to `chosen`, and return their number.

    The scores of sources that may not be chosen are overwritten.

    Args:
        scores, nodes, valid, first, excluded, rank, chosen: as for `insert_smallest`.
        scratch: see `scratch_of`.
    """
    if nodes <= 16 and rank <= 4:
        return insert_smallest(scores, nodes, valid, first, excluded, rank, scratch[0], chosen)
    if nodes <= MANY:
        return rank_few(scores, nodes, valid, first, excluded, rank, scratch, chosen)
    return choose_among_many(scores, nodes, valid, first, excluded, rank, scratch, chosen)


@kernel
def scratch_of(scores, rank):
    """Return scratch arrays for `choose`."""
    values = np.empty(MANY, scores.dtype)
    places, ranks = np.empty(MANY, np.int64), np.empty(MANY, np.int32)
    return np.empty(rank, scores.dtype), values, places, ranks, np.empty(rank, np.int64)
