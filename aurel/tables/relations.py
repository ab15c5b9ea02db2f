"""All relations of a table at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aurel.tables.au_table import AUTable
from aurel.tables.cells import Numbers
from aurel.tables.comparison import Comparison, compare
from aurel.tables.couplings import PairwiseModel, count_states, distinct_states
from aurel.tables.pairs import (
    Counts,
    conditional,
    count_pairs,
    phi,
    phi_variance,
    rates,
    together,
    weighted,
)
from aurel.tables.patterns import PATTERNS, pattern_counts, pattern_shares, patterns_in
from aurel.tables.resampling import (
    MIN_BLOCKS,
    PERMUTATIONS,
    Estimate,
    Units,
    estimate,
    false_discovery,
    false_discovery_pairs,
    resample_weights,
    resampling_units,
    separate_units,
    whole,
)
from aurel.tables.timing import (
    after_onset,
    first_share,
    frame_step,
    lagged_counts,
    order_counts,
    order_p,
    rows_later,
)

FEWEST_TOGETHER = 5
"""A pair is tested where so many effective frames show both AUs, or would by chance."""
PRIOR = 2.5
"""Standard deviation of the normal prior on couplings, as if frames were the effective ones."""
COUPLING_RESAMPLES = 200
"""Most resamples for couplings, each of which is a fit of its own."""
_FEWEST_STARTS = 10


@dataclass(frozen=True)
class Tested:
    """A statistic with q-values.

    Args:
        estimate: with p-values where it is tested.
        q: p-values after Benjamini and Hochberg.
    """

    estimate: Estimate
    q: Numbers

    def survives(self, rate: float = 0.05) -> NDArray[np.bool_]:
        """Return where the share of false discoveries is at most `rate`."""
        return np.nan_to_num(self.q, nan=1.0) <= rate


@dataclass(frozen=True)
class Timing:
    """Relations at a lag.

    Args:
        lag: seconds.
        phi: (N, N) correlation of i in a frame and j `lag` later.
        lead: (N, N) phi less its transpose: above 0 where j follows i more than i follows j.
        after_onset: (N, N) rate of j `lag` after a start of i, less its rate after any frame.
        first: (N, N) share of the pairs of starts at most `lag` apart in which i is first.
        starts: (N, N) number of such pairs, without those in the same frame.
        delay: (N, N) mean time from the start of i to that of j, in seconds.
    """

    lag: float
    phi: Tested
    lead: Tested
    after_onset: Tested
    first: Tested
    starts: Numbers
    delay: Numbers


@dataclass(frozen=True)
class Relations:
    """Relations between the AUs of a table; matrices are (N, N) with row i and column j.

    Args:
        table: the table.
        units: people or blocks of time that were resampled.
        level: of the intervals; 1 - level is the rate of false discoveries.
        counts: of pairs over all rows.
        rates: (N,) of each AU.
        observed: share of rows with both AUs.
        expected: the same if they were independent.
        phi: correlation coefficient.
        conditional: P(j | i).
        fields: (N,) h of the pairwise model.
        couplings: J of the pairwise model.
        complete: rows without an unknown AU, of which the pairwise model is.
        effective: (N, N) number of independent frames that would give the error of phi.
        patterns: combinations of AUs, by column.
        pattern_ratio: observed by expected share of each pattern.
        pattern_shares: (P, 2) observed and expected.
        timing: None where times are unknown, or no track is as long as the lag.
        comparisons: of each two conditions.
    """

    table: AUTable
    units: Units
    level: float
    counts: Counts
    rates: Estimate
    observed: Numbers
    expected: Numbers
    phi: Tested
    conditional: Estimate
    fields: Numbers
    couplings: Tested
    complete: int
    effective: Numbers
    patterns: tuple[tuple[int, ...], ...]
    pattern_ratio: Tested
    pattern_shares: Numbers
    timing: Timing | None
    comparisons: tuple[Comparison, ...]

    @property
    def effective_frames(self) -> float:
        """Median of `effective` over the pairs, 0 where there is none."""
        return median_of_pairs(self.effective)


def find_relations(
    table: AUTable,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    lag: float = 1.0,
    patterns: Sequence[Sequence[int]] = PATTERNS,
) -> Relations:
    """Return the relations between the AUs of a table, with intervals and q-values.

    People are resampled; of fewer than six, blocks of time. A pair is tested where at least five
    effective frames show both AUs or would by chance; else p and q are NaN.

    Args:
        table: from `AUTable.read`.
        level: of the intervals.
        resamples: number of resamples, 200 at most for couplings; ten times as many permutations.
        seed: of the random numbers.
        lag: seconds, for relations in time.
        patterns: combinations of AUs.

    Raises:
        ValueError: no known label, or an argument out of its range.
    """
    _check(table, level, resamples, lag)
    units = resampling_units(table)
    weights = resample_weights(units, resamples, seed)
    counts = count_pairs(table.labels, table.labels, *units.ranges)
    samples = counts.weighted(weights)
    total = count_pairs(table.labels, table.labels, *whole(table).ranges).total()

    interval = partial(estimate, units=units, level=level)
    correlation = interval(phi(total), phi(samples), scale="atanh")
    effective = _effective(total, correlation)
    tested = _tested_pairs(total, effective)
    ridge = 1 / (PRIOR**2 * max(median_of_pairs(effective), MIN_BLOCKS))
    fields, couplings, complete = _couplings(table, units, weights, level, ridge)
    own = tuple(patterns_in(table.aus, patterns))
    shares, ratio = _patterns(table, units, weights, own, level)
    return Relations(
        table=table,
        units=units,
        level=level,
        counts=total,
        rates=interval(rates(total), rates(samples), scale="logit", null=0.5),
        observed=together(total)[0],
        expected=together(total)[1],
        phi=_controlled(correlation, tested),
        conditional=interval(conditional(total), conditional(samples), scale="logit", null=0.5),
        fields=fields,
        couplings=_controlled(couplings, tested),
        complete=complete,
        effective=effective,
        patterns=own,
        pattern_ratio=ratio,
        pattern_shares=shares,
        timing=_timing(table, units, weights, tested, lag, level, seed),
        comparisons=_comparisons(table, units, resamples, seed, level),
    )


def median_of_pairs(matrix: Numbers) -> float:
    """Return the median of the finite values above the diagonal, 0 where there is none."""
    upper = matrix[np.triu_indices(len(matrix), 1)]
    return float(np.median(upper[np.isfinite(upper)])) if np.isfinite(upper).any() else 0.0


def _check(table: AUTable, level: float, resamples: int, lag: float) -> None:
    if not (table.labels >= 0).any():
        sources = ", ".join(account.source for account in table.accounts[:3]) or "the table"
        raise ValueError(
            f"{sources}: at least one row must have a known AU, "
            "got only rows that failed, are of low confidence or without a face"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if resamples < 20:
        raise ValueError(f"resamples must be at least 20, got {resamples}")
    if not lag > 0:
        raise ValueError(f"lag must be positive, got {lag}")


def _effective(counts: Counts, correlation: Estimate) -> Numbers:
    with np.errstate(all="ignore"):
        return np.minimum(phi_variance(counts) / correlation.error**2, counts.known)


def _tested_pairs(counts: Counts, effective: Numbers) -> NDArray[np.bool_]:
    observed, expected = together(counts)
    with np.errstate(invalid="ignore"):
        enough = effective * np.fmax(observed, expected) >= FEWEST_TOGETHER
    np.fill_diagonal(enough, False)
    return enough


def _controlled(found: Estimate, tested: NDArray[np.bool_], symmetric: bool = True) -> Tested:
    """Take p from what is not tested, and add q; `symmetric`: (i, j) and (j, i) are one test."""
    p = np.where(tested, found.p, np.nan)
    return Tested(
        replace(found, p=p), false_discovery_pairs(p) if symmetric else false_discovery(p)
    )


def _couplings(
    table: AUTable, units: Units, weights: Numbers, level: float, ridge: float
) -> tuple[Numbers, Estimate, int]:
    """Return h, J and the number of complete rows."""
    states, counts, row_state = distinct_states(table.labels)
    model = PairwiseModel.of(states, counts.astype(np.float64), ridge)
    parameters = model.fit(counts.astype(np.float64))
    fields, couplings = model.expanded(parameters)
    by_unit = count_states(row_state, len(states), *units.ranges)
    model = model.started_at(parameters)
    samples = []
    for weight in weights[:COUPLING_RESAMPLES]:
        own = weight @ by_unit
        sample = model.expanded(model.fit(own, tolerance=1e-4))[1]
        present = own @ states
        varies = (present > 0) & (present < own.sum())
        samples.append(np.where(varies[:, None] & varies, sample, np.nan))
    return fields, estimate(couplings, np.stack(samples), units, level=level), int(counts.sum())


def _comparisons(
    table: AUTable, units: Units, resamples: int, seed: int, level: float
) -> tuple[Comparison, ...]:
    conditions = [name for name in np.unique(table.condition).tolist() if name]
    return tuple(
        compare(table, units, first, second, resamples=resamples, seed=seed, level=level)
        for first, second in combinations(conditions, 2)
    )


def _patterns(
    table: AUTable,
    units: Units,
    weights: Numbers,
    patterns: Sequence[tuple[int, ...]],
    level: float,
) -> tuple[Numbers, Tested]:
    """Return observed and expected shares (P, 2), and their ratio."""
    counts = pattern_counts(table.labels, patterns, *units.ranges)
    total = pattern_counts(table.labels, patterns, *whole(table).ranges)[0]
    summed = weighted(counts, weights)
    observed, expected = pattern_shares(total, patterns)
    with np.errstate(all="ignore"):
        sampled = np.divide(*pattern_shares(summed, patterns))
        found = estimate(observed / expected, sampled, units, scale="log", null=1.0, level=level)
    return np.stack((observed, expected), axis=1), Tested(found, false_discovery(found.p))


def _timing(
    table: AUTable,
    units: Units,
    weights: Numbers,
    tested: NDArray[np.bool_],
    lag: float,
    level: float,
    seed: int,
) -> Timing | None:
    if np.isnan(frame_step(table)) or not (rows_later(table, lag) >= 0).any():
        return None
    present, starting = lagged_counts(table, units, lag)
    totals, starts = (counts.total() for counts in lagged_counts(table, whole(table), lag))
    samples = present.weighted(weights)
    lagged, sampled = phi(totals), phi(samples)
    found = estimate(lagged, sampled, units, scale="atanh", level=level)
    lead = estimate(lagged - lagged.T, sampled - np.swapaxes(sampled, -1, -2), units, level=level)
    after = estimate(
        after_onset(starts), after_onset(starting.weighted(weights)), units, level=level
    )
    order = order_counts(table, units, lag)
    apart = order_counts(table, separate_units(table, units), lag)
    summed = apart.total()
    first = estimate(
        first_share(summed),
        first_share(order.weighted(weights)),
        units,
        scale="logit",
        null=0.5,
        level=level,
    )
    first = replace(first, p=order_p(apart, PERMUTATIONS * len(weights), seed))
    pairs = summed.first + summed.first.T
    with np.errstate(all="ignore"):
        delay = summed.delay / (pairs + summed.same)
    off_diagonal = ~np.eye(len(lagged), dtype=bool)
    return Timing(
        lag,
        phi=_controlled(found, tested, symmetric=False),
        lead=_controlled(lead, tested),
        after_onset=_controlled(
            after, (starts.first >= _FEWEST_STARTS) & off_diagonal, symmetric=False
        ),
        first=_controlled(first, pairs >= _FEWEST_STARTS),
        starts=pairs,
        delay=delay,
    )
