"""Relations in time: which AU follows which, and which starts first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.tables.au_table import AUTable
from aurel.tables.cells import Numbers
from aurel.tables.pairs import Counts, Labels, count_pairs, weighted
from aurel.tables.resampling import Indices, Units, chunks, permutation_p


def frame_step(table: AUTable) -> float:
    """Return the usual time between two rows of a track in seconds, NaN where times are unknown."""
    gaps = np.diff(table.time)[table.track[1:] == table.track[:-1]]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else float("nan")


def rows_later(table: AUTable, lag: float) -> Indices:
    """Return for each row that row of its track which is `lag` seconds later, -1 where none is.

    A row within half a frame of that time counts.
    """
    step = frame_step(table)
    result = np.full(len(table), -1, dtype=np.int64)
    for first, last in _tracks(table):
        times = table.time[first:last]
        if np.isnan(times).any():
            continue
        index = np.searchsorted(times, times + lag - 0.5 * step)
        inside = np.minimum(index, last - first - 1)
        hit = (index < last - first) & (np.abs(times[inside] - times - lag) <= 0.501 * step)
        result[first:last][hit] = first + index[hit]
    return result


def onsets(table: AUTable) -> Labels:
    """Return where AUs start: 1 at a present frame after an absent one, else 0, -1 unknown.

    The frame before must be the one before in time; after a gap it is unknown what has started.
    """
    step = frame_step(table)
    before = np.full(table.labels.shape, -1, dtype=np.int8)
    same = table.track[1:] == table.track[:-1]
    moment = table.frame.astype(np.float64) if np.isnan(step) else table.time
    limit = 1.5 * (_frame_gap(table) if np.isnan(step) else step)
    same &= np.diff(moment) <= limit
    before[1:][same] = table.labels[:-1][same]
    started = ((table.labels == 1) & (before == 0)).astype(np.int8)
    started[(table.labels < 0) | (before < 0)] = -1
    return started


def _frame_gap(table: AUTable) -> float:
    gaps = np.diff(table.frame)[table.track[1:] == table.track[:-1]]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _tracks(table: AUTable) -> list[tuple[int, int]]:
    starts = np.flatnonzero(np.r_[True, table.track[1:] != table.track[:-1]])
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(table)], strict=True))


def lagged_counts(table: AUTable, units: Units, lag: float) -> tuple[Counts, Counts]:
    """Return counts of each unit, of AU i in a frame and AU j `lag` seconds later.

    Returns:
        counts in which i is present, and counts in which i starts.
    """
    later_row = rows_later(table, lag)
    later = np.where(later_row[:, None] >= 0, table.labels[later_row], np.int8(-1))
    return (
        count_pairs(table.labels, later, *units.ranges),
        count_pairs(onsets(table), later, *units.ranges),
    )


def after_onset(counts: Counts) -> Numbers:
    """Return how much more often j is present `lag` after a start of i than `lag` after any frame.

    Args:
        counts: those of onsets.
    """
    with np.errstate(all="ignore"):
        return counts.both / counts.first - counts.second / counts.known


@dataclass(frozen=True)
class OrderCounts:
    """Pairs of starts that belong together, by unit or summed.

    Args:
        first: (..., N, N) pairs in which i starts before j.
        same: pairs that start in the same frame.
        delay: sum over all pairs of the time of j less that of i, in seconds.
    """

    first: Numbers
    same: Numbers
    delay: Numbers

    def weighted(self, weights: Numbers) -> OrderCounts:
        """Return sums over the first axis, once for each row of the (R, U) weights."""
        parts = (self.first, self.same, self.delay)
        return OrderCounts(
            *(
                (weights @ part.reshape(len(part), -1)).reshape(-1, *part.shape[1:])
                for part in parts
            )
        )

    def total(self) -> OrderCounts:
        """Return sums over the first axis."""
        return OrderCounts(self.first.sum(0), self.same.sum(0), self.delay.sum(0))


def order_counts(table: AUTable, units: Units, window: float) -> OrderCounts:
    """Return counts of which of two AUs starts first.

    A start of i and a start of j in one track belong together where each is the nearest of the
    other and they are at most `window` seconds apart.
    """
    started = onsets(table) == 1
    number = len(table.aus)
    shape = (len(units), number, number)
    result = OrderCounts(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    step = frame_step(table)
    if np.isnan(step):
        return result
    # Tracks are laid one after the other on one axis of time, too far apart to meet.
    _, track = np.unique(table.track, return_inverse=True)
    span = float(np.nanmax(table.time) - np.nanmin(table.time)) + 10 * window
    moment = table.time - np.nanmin(table.time) + track * span
    rows = [np.flatnonzero(started[:, au] & ~np.isnan(moment)) for au in range(number)]
    for i in range(number):
        for j in range(i + 1, number):
            at, delay = _matched(rows[i], moment[rows[i]], moment[rows[j]], window)
            simultaneous = np.abs(delay) < 0.5 * step
            for counted, part, where in (
                ((delay > 0) & ~simultaneous, result.first, (i, j)),
                ((delay < 0) & ~simultaneous, result.first, (j, i)),
                (simultaneous, result.same, (i, j)),
            ):
                part[:, *where] = _in_units(at, counted.astype(np.float64), units)
            result.same[:, j, i] = result.same[:, i, j]
            result.delay[:, i, j] = _in_units(at, delay, units)
            result.delay[:, j, i] = -result.delay[:, i, j]
    return result


def first_share(counts: OrderCounts) -> Numbers:
    """Return in which share of the pairs that do not start in the same frame i is first.

    It is (first + 1/2) / (pairs + 1), so that AUs of which one is always first have an interval,
    too; NaN without any pair.
    """
    pairs = counts.first + np.swapaxes(counts.first, -1, -2)
    return np.where(pairs > 0, (counts.first + 0.5) / (pairs + 1), np.nan)


def order_p(counts: OrderCounts, permutations: int, seed: int) -> Numbers:
    """Return p-values of which AU is first, by exchanging i and j within units at random.

    Args:
        counts: of units that share no rows.
        permutations: how many.
        seed: of the random numbers.
    """
    excess = counts.first - np.swapaxes(counts.first, -1, -2)
    rng = np.random.default_rng(seed + 2)
    chance = [
        weighted(excess, rng.choice((-1.0, 1.0), (number, len(excess))))
        for number in chunks(permutations, len(excess))
    ]
    p = permutation_p(excess.sum(0), np.concatenate(chance))
    return np.where((excess != 0).any(0), p, np.nan)


def _matched(
    rows: Indices, first: Numbers, second: Numbers, window: float
) -> tuple[Indices, Numbers]:
    """Return the rows of the starts of i that have a partner, and how much later that is."""
    if not len(first) or not len(second):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    order = np.argsort(first)
    rows, first, second = rows[order], first[order], np.sort(second)
    ahead, back = _nearest(first, second), _nearest(second, first)
    delay = second[ahead] - first
    mutual = (back[ahead] == np.arange(len(first))) & (np.abs(delay) <= window)
    return rows[mutual], delay[mutual]


def _nearest(points: Numbers, sorted_others: Numbers) -> Indices:
    right = np.searchsorted(sorted_others, points).clip(1, max(1, len(sorted_others) - 1))
    right = np.minimum(right, len(sorted_others) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(points - sorted_others[left]) <= np.abs(sorted_others[right] - points)
    return np.where(nearer, left, right)


def _in_units(rows: Indices, values: Numbers, units: Units) -> Numbers:
    """Return the sum of the values at those rows that are in each unit, (U,)."""
    order = np.argsort(rows)
    total = np.concatenate(([0.0], np.cumsum(values[order])))
    rows = rows[order]
    return total[np.searchsorted(rows, units.stops)] - total[np.searchsorted(rows, units.starts)]
