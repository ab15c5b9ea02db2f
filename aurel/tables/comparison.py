"""Two conditions compared by permutation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aurel.tables.au_table import AUTable
from aurel.tables.cells import Numbers
from aurel.tables.pairs import Counts, count_pairs, phi, rates
from aurel.tables.resampling import (
    PERMUTATIONS,
    Estimate,
    Units,
    chunks,
    estimate,
    false_discovery,
    false_discovery_pairs,
    permutation_p,
    resample_weights,
    separate_units,
)


@dataclass(frozen=True)
class Difference:
    """A statistic under two conditions.

    Args:
        first: under the first condition.
        second: under the second.
        estimate: second less first, with an interval; its p is that of the permutations.
        q: p after Benjamini and Hochberg.
    """

    first: Numbers
    second: Numbers
    estimate: Estimate
    q: Numbers


@dataclass(frozen=True)
class Comparison:
    """Rates and correlations of two conditions.

    Args:
        first: name of the first condition.
        second: name of the second.
        paired: people who are seen under both; the two are swapped within each.
        unpaired: people who are seen under one; they change places with others.
        rates: (N,) of each AU.
        phi: (N, N) of each pair.
    """

    first: str
    second: str
    paired: int
    unpaired: int
    rates: Difference
    phi: Difference


def compare(
    table: AUTable,
    units: Units,
    first: str,
    second: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two conditions of a table.

    Where people are resampled, a permutation swaps the conditions within each person who is seen
    under both, and shuffles them over people who are seen under one. Where blocks of time are, it
    shuffles conditions over the blocks of each person.

    Args:
        table: with both conditions.
        units: those of `resampling_units`.
        first: name of a condition.
        second: name of another.
        resamples: number of resamples for intervals; ten times as many permutations.
        seed: of the random numbers.
        level: of the intervals.
    """
    parts = [_counts(table, units, name) for name in (first, second)]
    weights = resample_weights(units, resamples, seed)
    swapped = separate_units(table, units)
    swap_parts = parts if not units.block else [_counts(table, swapped, n) for n in (first, second)]
    seen = np.stack([part.known.any((1, 2)) for part in swap_parts], axis=1)
    people = table.person[swapped.starts]
    rng = np.random.default_rng(seed + 1)
    chances: list[list[Numbers]] = [[], []]
    for number in chunks(PERMUTATIONS * resamples, len(swapped)):
        swaps = _swaps(seen, people, bool(units.block), number, rng)
        permuted = _permuted(swap_parts[0], swap_parts[1], swaps)
        for found, statistic in zip(chances, (rates, phi), strict=True):
            found.append(statistic(permuted[1]) - statistic(permuted[0]))
    differences = []
    for statistic, chance in zip((rates, phi), chances, strict=True):
        values = [statistic(part.total()) for part in swap_parts]
        samples = [statistic(part.weighted(weights)) for part in parts]
        interval = estimate(values[1] - values[0], samples[1] - samples[0], units, level=level)
        p = permutation_p(values[1] - values[0], np.concatenate(chance))
        if not seen.all(1).any() and not _exchangeable(seen, people, bool(units.block)):
            p = np.full_like(p, np.nan)
        q = false_discovery(p) if p.ndim == 1 else false_discovery_pairs(p)
        differences.append(Difference(values[0], values[1], replace(interval, p=p), q))
    both = _people_seen(table, first) & _people_seen(table, second)
    either = _people_seen(table, first) | _people_seen(table, second)
    return Comparison(first, second, len(both), len(either - both), *differences)


def _counts(table: AUTable, units: Units, condition: str) -> Counts:
    labels = np.where((table.condition == condition)[:, None], table.labels, np.int8(-1))
    return count_pairs(labels, labels, *units.ranges)


def _people_seen(table: AUTable, condition: str) -> set[str]:
    rows = (table.condition == condition) & (table.labels >= 0).any(1)
    return set(table.person[rows].tolist())


def _exchangeable(seen: NDArray[np.bool_], people: NDArray[np.str_], within: bool) -> bool:
    """Return whether there are units of both conditions that can change places."""
    groups = people if within else np.full(len(people), "")
    return any(seen[groups == name].any(0).all() for name in np.unique(groups))


def _swaps(
    seen: NDArray[np.bool_],
    people: NDArray[np.str_],
    within: bool,
    resamples: int,
    rng: np.random.Generator,
) -> Numbers:
    """Return which units change their condition in each permutation, (R, U) of 0 and 1."""
    swaps = np.zeros((resamples, len(seen)))
    both = seen.all(1)
    swaps[:, both] = rng.integers(0, 2, (resamples, int(both.sum())))
    groups = people if within else np.full(len(people), "")
    for name in np.unique(groups):
        single = np.flatnonzero(seen.any(1) & ~both & (groups == name))
        if len(single):
            condition = np.tile(seen[single, 1], (resamples, 1))
            swaps[:, single] = rng.permuted(condition, axis=1) != condition
    return swaps


def _permuted(first: Counts, second: Counts, swaps: Numbers) -> tuple[Counts, Counts]:
    """Return sums under both conditions after each permutation."""
    ones = np.ones_like(swaps)
    kept = [part.weighted(ones - swaps) for part in (first, second)]
    moved = [part.weighted(swaps) for part in (first, second)]
    return _added(kept[0], moved[1]), _added(kept[1], moved[0])


def _added(one: Counts, other: Counts) -> Counts:
    return Counts(
        one.known + other.known,
        one.both + other.both,
        one.first + other.first,
        one.second + other.second,
    )
