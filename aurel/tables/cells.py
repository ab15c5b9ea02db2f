"""Cells as numbers, with the file and line of one that is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

# What tools write where there is no number; "-nan(ind)" is that of C++ on Windows.
_MISSING = frozenset(
    ("", "na", "n/a", "nan", "-nan", "-nan(ind)", "nan(ind)", "null", "none", "-", "#n/a")
    + ("fit_failed", "find_failed", "unknown", "missing")
)
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


def to_numbers(
    cells: Sequence[str],
    name: str,
    place: Sequence[str],
    *,
    decimal_comma: bool = False,
    words: Mapping[str, float] | None = None,
) -> Numbers:
    """Return cells as float64, NaN where a cell is empty or says that there is no value.

    Args:
        cells: texts without blanks around them.
        name: the column, for the error.
        place: file and line of each cell, for the error.
        decimal_comma: read "0,5" as 0.5.
        words: numbers that words stand for, by the word in lower case.

    Raises:
        ValueError: a cell that is no number; names file, line, column and cell.
    """
    if not decimal_comma and not words:
        try:  # the common case, in one step
            return np.array([cell or "nan" for cell in cells], dtype=np.float64)
        except ValueError:
            pass
    numbers = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        word = cell.lower()
        if word in _MISSING:
            continue
        if words and word in words:
            numbers[row] = words[word]
            continue
        if decimal_comma and cell.count(",") == 1 and "." not in cell:
            word = cell.replace(",", ".")
        try:
            numbers[row] = float(word)
        except ValueError:
            raise ValueError(
                f"{place[row]}: {name} must be a number or empty, got {cell!r}"
            ) from None
    return numbers


def to_seconds(
    cells: Sequence[str], name: str, place: Sequence[str], *, decimal_comma: bool = False
) -> Numbers:
    """Return times as seconds; "00:01:02.5" is read as hours, minutes and seconds.

    Raises:
        ValueError: a cell that is no time; names file, line, column and cell.
    """
    clocks = {}
    for cell in set(cells):
        match = _CLOCK.fullmatch(cell.replace(",", "."))
        if match:
            hours, minutes, seconds = (float(part or 0) for part in match.groups())
            clocks[cell.lower()] = 3600 * hours + 60 * minutes + seconds
    return to_numbers(cells, name, place, decimal_comma=decimal_comma, words=clocks)
