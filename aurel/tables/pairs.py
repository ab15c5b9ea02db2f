"""How often AUs are present, alone and together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aurel.tables.cells import Numbers
from aurel.tables.resampling import Indices

Labels = NDArray[np.int8]


@dataclass(frozen=True)
class Counts:
    """Counts of pairs over rows, for AU i of a row and AU j of the same or another row.

    Args:
        known: (..., N, N) rows in which both are known.
        both: rows in which both are present.
        first: rows in which i is present and j is known.
        second: rows in which j is present and i is known.
    """

    known: Numbers
    both: Numbers
    first: Numbers
    second: Numbers

    def weighted(self, weights: Numbers) -> Counts:
        """Return sums over the first axis, once for each row of the (R, U) weights."""
        parts = (self.known, self.both, self.first, self.second)
        return Counts(
            *(
                (weights @ part.reshape(len(part), -1)).reshape(-1, *part.shape[1:])
                for part in parts
            )
        )

    def total(self) -> Counts:
        """Return sums over the first axis."""
        return Counts(self.known.sum(0), self.both.sum(0), self.first.sum(0), self.second.sum(0))


def weighted(part: Numbers, weights: Numbers) -> Numbers:
    """Return sums over the first axis of (U, ...), once for each row of the (R, U) weights."""
    return np.tensordot(weights, part, axes=1).astype(np.float64, copy=False)


def count_pairs(labels: Labels, later: Labels, starts: Indices, stops: Indices) -> Counts:
    """Return counts of each unit.

    Args:
        labels: (M, N) of AU i, -1 unknown.
        later: (M, N) of AU j, in the same rows or in rows that follow them.
        starts: (U,) first row of each unit.
        stops: (U,) row after its last.
    """
    present, known = (labels == 1).astype(np.float64), (labels >= 0).astype(np.float64)
    also, seen = (later == 1).astype(np.float64), (later >= 0).astype(np.float64)
    size = (len(starts), labels.shape[1], labels.shape[1])
    result = Counts(np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    for unit, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        rows = slice(start, stop)
        result.known[unit] = known[rows].T @ seen[rows]
        result.both[unit] = present[rows].T @ also[rows]
        result.first[unit] = present[rows].T @ seen[rows]
        result.second[unit] = known[rows].T @ also[rows]
    return result


def rates(counts: Counts) -> Numbers:
    """Return the share of known rows in which each AU is present, (..., N)."""
    with np.errstate(all="ignore"):
        return np.diagonal(counts.both / counts.known, axis1=-2, axis2=-1).copy()


def conditional(counts: Counts) -> Numbers:
    """Return P(j present | i present), (..., N, N); NaN where i never is."""
    with np.errstate(all="ignore"):
        return counts.both / counts.first


def together(counts: Counts) -> tuple[Numbers, Numbers]:
    """Return the shares of rows with both AUs, observed and expected if they were independent."""
    with np.errstate(all="ignore"):
        return counts.both / counts.known, counts.first * counts.second / counts.known**2


def phi(counts: Counts) -> Numbers:
    r"""Return the correlation coefficient of two binary variables, (..., N, N).

    .. math:: \phi = \frac{n\, n_{11} - n_{1\cdot} n_{\cdot 1}}
        {\sqrt{n_{1\cdot} n_{0\cdot} n_{\cdot 1} n_{\cdot 0}}}

    NaN where one of them does not vary; Matthews' correlation coefficient.
    """
    n, i, j = counts.known, counts.first, counts.second
    with np.errstate(all="ignore"):
        return (n * counts.both - i * j) / np.sqrt(i * (n - i) * j * (n - j))


def phi_variance(counts: Counts) -> Numbers:
    """Return n times the variance that phi would have if rows were independent.

    It is the variance of phi's influence function, z_i z_j - phi (z_i^2 + z_j^2) / 2 with z the
    standardized variables, over the four cells of the table.
    """
    correlation = phi(counts)
    with np.errstate(all="ignore"):
        n = counts.known
        a, b, p11 = counts.first / n, counts.second / n, counts.both / n
        cells = {(1, 1): p11, (1, 0): a - p11, (0, 1): b - p11, (0, 0): 1 - a - b + p11}
        total = np.zeros_like(p11)
        for (one, other), share in cells.items():
            z, w = (one - a) / np.sqrt(a * (1 - a)), (other - b) / np.sqrt(b * (1 - b))
            total += share * (z * w - 0.5 * correlation * (z**2 + w**2)) ** 2
        return total
