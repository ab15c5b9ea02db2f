"""Intervals and p-values from resampled people, or from blocks of time for few people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aurel.tables.au_table import AUTable
from aurel.tables.cells import Numbers

try:
    from scipy.special import expit, logit
    from scipy.stats import false_discovery_control
    from scipy.stats import t as student
except ImportError as error:
    raise ImportError("statistics of tables need scipy: pip install 'aurel-au[tables]'") from error

Indices = NDArray[np.int64]
Scale = Literal["identity", "logit", "atanh", "log"]

MIN_PEOPLE = 6
"""With fewer people than this, blocks of time are resampled."""
MIN_BLOCKS = 5
PERMUTATIONS = 10
"""Permutations for each resample: a q-value of few tests needs small p-values."""
_OVERLAP = 4  # each row is in about so many blocks
_MOST_UNDEFINED = 0.2  # of the resamples

_SCALES: dict[Scale, tuple[Callable[[Numbers], Numbers], Callable[[Numbers], Numbers]]] = {
    "identity": (np.asarray, np.asarray),
    "logit": (logit, expit),
    "atanh": (np.arctanh, np.tanh),
    "log": (np.log, np.exp),
}


@dataclass(frozen=True)
class Units:
    """Units of resampling: people, or blocks of time, each a range of consecutive rows.

    Args:
        starts: (U,) first row of each.
        stops: (U,) row after the last.
        sample_size: number of units in a resample: the number of independent observations.
        block: rows of a block; 0 where the units are people.
    """

    starts: Indices
    stops: Indices
    sample_size: int
    block: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ranges(self) -> tuple[Indices, Indices]:
        """`starts` and `stops`."""
        return self.starts, self.stops


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval.

    Args:
        value: of all rows; NaN where it is not defined.
        low: lower bound, NaN where there is none.
        high: upper bound.
        p: two-sided p-value against no relation; NaN where it is not tested.
        error: standard error on the scale of `value`.
    """

    value: Numbers
    low: Numbers
    high: Numbers
    p: Numbers
    error: Numbers


def whole(table: AUTable) -> Units:
    """Return all rows as one unit."""
    return Units(np.array([0]), np.array([len(table)]), sample_size=1)


def resampling_units(table: AUTable) -> Units:
    """Return the people of a table, or blocks of time where there are fewer than six people."""
    if len(np.unique(table.person)) >= MIN_PEOPLE:
        starts = _run_starts(table.person)
        return Units(starts, np.append(starts[1:], len(table)), sample_size=len(starts))
    length = block_length(table)
    return blocks(table, length, max(1, length // _OVERLAP))


def blocks(table: AUTable, length: int, stride: int) -> Units:
    """Return blocks of `length` rows, one every `stride` rows, none across two recordings.

    The last block of a recording ends with it and may be shorter.
    """
    starts, stops = [], []
    for first, last in series(table):
        begin = np.arange(first, max(first, last - length) + 1, stride)
        if last - length > begin[-1]:  # the rest: a shorter block, or one that overlaps more
            begin = np.append(begin, min(begin[-1] + stride, last - 1))
        starts.append(begin)
        stops.append(np.minimum(begin + length, last))
    sample_size = max(2, round(len(table) / length))
    return Units(np.concatenate(starts), np.concatenate(stops), sample_size, length)


def separate_units(table: AUTable, units: Units) -> Units:
    """Return units that share no rows: people as they are, blocks one after the other."""
    return blocks(table, units.block, units.block) if units.block else units


def series(table: AUTable) -> list[tuple[int, int]]:
    """Return the ranges of rows of one track under one condition."""
    starts = _run_starts(table.track, table.condition)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(table)], strict=True))


def block_length(table: AUTable) -> int:
    r"""Return how many rows a block must have, from the autocorrelation of the AUs.

    .. math:: b = (\tfrac{3}{2} \tau^2 n)^{1/3}

    with :math:`\tau` half the integrated autocorrelation time of the most persistent AU: the
    length of least error for the variance of a mean of a first-order autoregression, where
    :math:`\rho^k = e^{-k / \tau}`. At most a fifth of the rows.

    Source: Politis and White, Econometric Reviews 2004, section 3.
    """
    memory = 0.5 * autocorrelation_time(table).max(initial=1.0)
    length = (1.5 * memory**2 * len(table)) ** (1 / 3)
    return int(np.clip(np.ceil(length), 1, max(1, len(table) // MIN_BLOCKS)))


def autocorrelation_time(table: AUTable) -> Numbers:
    r"""Return :math:`1 + 2 \sum_k \rho_k` of each AU in rows, (N,).

    The sum ends at the first correlation that is not positive. Unknown labels count as the mean.
    An AU that never changes has 1.
    """
    known = table.labels >= 0
    present = np.where(known, table.labels, 0).astype(np.float64)
    mean = present.sum(0) / np.maximum(known.sum(0), 1)
    centered = np.where(known, present - mean, 0.0)
    longest = max(last - first for first, last in series(table))
    size = 1 << (2 * longest - 1).bit_length()
    power = np.zeros((size // 2 + 1, centered.shape[1]))
    for first, last in series(table):
        power += np.abs(np.fft.rfft(centered[first:last], size, axis=0)) ** 2
    covariance = np.fft.irfft(power, size, axis=0)[:longest]
    correlation = covariance / np.maximum(covariance[:1], 1e-12)
    positive = np.logical_and.accumulate(correlation > 1e-9, axis=0)
    total = 2 * np.where(positive, correlation, 0.0).sum(0) - 1
    return np.where(covariance[0] > 1e-9, np.maximum(total, 1.0), 1.0)


def resample_weights(units: Units, resamples: int, seed: int) -> Numbers:
    """Return how often each unit is in each resample, (R, U)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(
        units.sample_size, np.full(len(units), 1 / len(units)), resamples
    ).astype(np.float64)


def estimate(
    value: Numbers,
    samples: Numbers,
    units: Units,
    *,
    scale: Scale = "identity",
    null: float | Numbers = 0.0,
    level: float = 0.95,
) -> Estimate:
    r"""Return a statistic with an interval by Student's t around the error of the resamples.

    On the scale `f` (such as the logit of a rate) the interval is
    :math:`f(\hat\theta) \pm t_{G-1} \sqrt{G / (G - 1)}\, s`, with s the standard deviation of f
    over the resamples and G the number of people or independent blocks.

    Args:
        value: the statistic, any shape.
        samples: (R, ...) the same of each resample; NaN where it is not defined.
        units: what was resampled.
        scale: f.
        null: the value without a relation.
        level: of the interval.

    Returns:
        bounds and p are NaN where the value is not finite on the scale, where it does not vary, or
        where more than a fifth of the resamples do not define it.
    """
    forward, back = _SCALES[scale]
    with np.errstate(all="ignore"):
        center, spread = forward(value), _deviation(forward(samples))
        factor = np.sqrt(units.sample_size / max(units.sample_size - 1, 1))
        spread = np.where(np.isfinite(center) & (spread > 1e-12), factor * spread, np.nan)
        reach = student.ppf((1 + level) / 2, max(units.sample_size - 1, 1)) * spread
        distance = np.abs(center - forward(np.asarray(null, dtype=np.float64))) / spread
        return Estimate(
            value,
            back(center - reach),
            back(center + reach),
            2 * student.sf(distance, max(units.sample_size - 1, 1)),
            factor * _deviation(samples),
        )


def _deviation(samples: Numbers) -> Numbers:
    """Return the standard deviation over the first axis, of finite samples; NaN for too few."""
    finite = np.isfinite(samples)
    count = finite.sum(0)
    kept = np.where(finite, samples, 0.0)
    mean = kept.sum(0) / np.maximum(count, 1)
    squares = (np.where(finite, samples - mean, 0.0) ** 2).sum(0)
    enough = count >= max(2, (1 - _MOST_UNDEFINED) * len(samples))
    return np.where(enough, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def chunks(number: int, units: int) -> Iterator[int]:
    """Yield parts of a number of permutations, so small that one of all units fits into memory."""
    most = max(1, 4_000_000 // max(units, 1))
    for first in range(0, number, most):
        yield min(most, number - first)


def permutation_p(value: Numbers, chance: Numbers) -> Numbers:
    """Return two-sided p-values: the share of (R, ...) permutations at least as far from zero.

    The value itself counts as one of them. NaN where it is NaN or has no other.
    """
    finite = np.isfinite(chance)
    with np.errstate(invalid="ignore"):
        as_far = (np.abs(chance) >= np.abs(value) - 1e-12) & finite
    p = (1 + as_far.sum(0)) / (1 + finite.sum(0))
    return np.where(np.isfinite(value) & finite.any(0), p, np.nan)


def false_discovery(p: Numbers, family: NDArray[np.bool_] | None = None) -> Numbers:
    """Return Benjamini and Hochberg's adjusted p-values; NaN stays NaN and counts for nothing.

    Args:
        p: p-values of any shape.
        family: which of them are tests of their own; of a symmetric matrix, one triangle. Values
            outside are NaN in the result.
    """
    tested = np.isfinite(p) if family is None else np.isfinite(p) & family
    adjusted = np.full(p.shape, np.nan)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return adjusted


def false_discovery_pairs(p: Numbers) -> Numbers:
    """Return the adjusted p-values of a symmetric matrix, a test a pair; its diagonal is NaN."""
    upper = false_discovery(p, np.triu(np.ones(p.shape, dtype=bool), 1))
    return np.where(np.isnan(upper), upper.T, upper)


def _run_starts(*keys: NDArray[np.generic]) -> Indices:
    """Return where runs of equal keys start."""
    if not len(keys[0]):
        return np.zeros(0, dtype=np.int64)
    new = np.zeros(len(keys[0]), dtype=bool)
    new[0] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)
