"""Combinations of AUs, and how often they would be by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aurel.facs import AUSet
from aurel.tables.cells import Numbers
from aurel.tables.pairs import Labels
from aurel.tables.resampling import Indices

PATTERNS: tuple[tuple[int, ...], ...] = (
    (1, 2),
    (1, 4),
    (1, 2, 4),
    (1, 2, 5),
    (4, 7),
    (4, 5, 7),
    (6, 7),
    (6, 12),
    (6, 7, 12),
    (6, 12, 25),
    (9, 10),
    (10, 12),
    (12, 14),
    (12, 25),
    (14, 15),
    (1, 4, 15),
    (15, 17),
    (17, 23),
    (17, 24),
    (23, 24),
    (25, 26),
)
"""Combinations that handbooks of FACS and of emotional expressions name."""


def patterns_in(aus: AUSet, patterns: Sequence[Sequence[int]] = PATTERNS) -> list[tuple[int, ...]]:
    """Return those patterns all of whose AUs (of both sides) the set holds, as its columns."""
    found = []
    for pattern in patterns:
        names = [f"AU{number:02d}" for number in pattern]
        if all(name in aus.names for name in names):
            found.append(tuple(aus.names.index(name) for name in names))
    return found


def pattern_counts(
    labels: Labels, patterns: Sequence[tuple[int, ...]], starts: Indices, stops: Indices
) -> Numbers:
    """Return counts of each unit, (U, P, 2 + L) with L the length of the longest pattern.

    In the last axis: rows in which all AUs of the pattern are known, rows in which all are
    present, and of the former those in which its first, second, ... AU is present.
    """
    longest = max((len(pattern) for pattern in patterns), default=0)
    result = np.zeros((len(starts), len(patterns), 2 + longest))
    for place, pattern in enumerate(patterns):
        own = labels[:, pattern]
        known = np.asarray((own >= 0).all(1))
        parts = np.zeros((len(labels) + 1, 2 + longest))
        parts[1:, 0] = known
        parts[1:, 1] = (own == 1).all(1)
        parts[1:, 2 : 2 + len(pattern)] = (own == 1) & known[:, None]
        sums = parts.cumsum(0)
        result[:, place] = sums[stops] - sums[starts]
    return result


def pattern_shares(counts: Numbers, patterns: Sequence[tuple[int, ...]]) -> tuple[Numbers, Numbers]:
    """Return the share of rows that show each pattern, and the product of its AUs' rates."""
    observed, expected = np.full((2, *counts.shape[:-1]), np.nan)
    with np.errstate(all="ignore"):
        for place, pattern in enumerate(patterns):
            own = counts[..., place, :]
            observed[..., place] = own[..., 1] / own[..., 0]
            shares = own[..., 2 : 2 + len(pattern)] / own[..., :1]
            expected[..., place] = shares.prod(-1)
    return observed, expected
