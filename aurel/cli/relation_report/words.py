"""Numbers of the report of `aurel relations` in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aurel.tables.relations import Tested
from aurel.tables.resampling import Estimate


def counted(number_of: int, one: str, many: str | None = None) -> str:
    """Return "1 pair" or "3 pairs"."""
    return f"{number_of:,} {one if number_of == 1 else many or one + 's'}"


def number(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals, a dash for NaN."""
    return f"{value:,.{digits}f}" if np.isfinite(value) else "–"


def percent(value: float) -> str:
    """Return a share as "12 %", with more digits below 10 %."""
    if not np.isfinite(value):
        return "–"
    size = abs(100 * value)
    return f"{100 * value:.{0 if size >= 10 or size == 0 else 1 if size >= 1 else 2}f} %"


def interval(
    estimate: Estimate,
    place: tuple[int, ...],
    *,
    as_percent: bool = False,
    value: bool = True,
) -> str:
    """Return "0.53 (0.42 to 0.62)", or without its value "0.42 to 0.62"."""
    low, high = float(estimate.low[place]), float(estimate.high[place])
    text = percent if as_percent else number
    bounds = f"{text(low)} to {text(high)}" if np.isfinite(low) and np.isfinite(high) else "–"
    return f"{text(float(estimate.value[place]))} ({bounds})" if value else bounds


def q_text(q: float) -> str:
    """Return q with three decimals."""
    if not np.isfinite(q):
        return "–"
    return "< 0.001" if q < 0.001 else f"{q:.3f}"


def surviving(found: Tested, level: float) -> NDArray[np.bool_]:
    """Return which values have a q of at most 1 - level."""
    return found.survives(1 - level)


def by_strength(
    found: Tested, survivors: NDArray[np.bool_], directed: bool = False
) -> list[tuple[int, int]]:
    """Return the pairs (i, j) that survive, strongest first; each once unless directed."""
    shown = survivors if directed else np.triu(survivors, 1)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(shown)]
    return sorted(pairs, key=lambda pair: -abs(float(found.estimate.value[pair])))


def certainty(estimate: Estimate) -> NDArray[np.float64]:
    """Return |value| / (|value| + half the width of its interval), 0.25 at least."""
    size, width = np.abs(estimate.value), estimate.high - estimate.low
    with np.errstate(all="ignore"):
        return np.clip(np.nan_to_num(size / (size + 0.5 * width), nan=0.25), 0.25, 1.0)
