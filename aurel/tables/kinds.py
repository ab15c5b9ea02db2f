"""Presence, probability or intensity: the kind of AU columns, and the threshold of presence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aurel.tables.cells import Numbers
from aurel.tables.columns import OPENFACE3_AUS, AUColumn, Kind, Tool

KINDS: tuple[Kind, ...] = ("presence", "probability", "intensity")
UNKNOWN_CODES = (-1.0, 9.0, 999.0)
"""Labels of BP4D and EmotioNet that mean unknown."""

LETTERS: Mapping[str, float] = {
    **dict.fromkeys(("notactive", "not active"), 0.0),
    **{letter: float(value) for value, letter in enumerate("abcde", start=1)},
}
"""Intensities of FACS; FaceReader writes them, and NotActive below A."""

_PLAIN: Mapping[Tool, Kind] = {
    "pyfeat": "probability",
    "aurel": "probability",
    "openface3": "probability",
    "libreface": "presence",
}
_NAMED: Mapping[str, Kind] = {
    **{kind: kind for kind in KINDS},
    "letters": "intensity",
    "percent": "probability",
    "evidence": "probability",
}
_FACEREADER_ACTIVE = 0.1  # FaceReader's own bound of NotActive on its scale from 0 to 1
_SLACK = 0.01


@dataclass(frozen=True)
class Reading:
    """AUs of a table, one column each.

    Args:
        names: AUs as `AUSet` names them.
        values: (M, N), NaN where unknown.
        kind: what the values are.
        threshold: the value from which an AU counts as present.
        left_out: AUs of the file of which there is no column of this kind.
    """

    names: tuple[str, ...]
    values: Numbers
    kind: Kind
    threshold: float
    left_out: tuple[str, ...]


def labels_of(values: Numbers, threshold: float) -> NDArray[np.int8]:
    """Return 1 where a value reaches the threshold, 0 below it, -1 where it is NaN."""
    labels = (values >= threshold).astype(np.int8)
    labels[np.isnan(values)] = -1
    return labels


def interpret(
    columns: Sequence[AUColumn],
    cells: Mapping[int, Numbers],
    tool: Tool,
    requested: Kind | Literal["auto"],
    threshold: float | None,
    place: Sequence[str],
) -> Reading:
    """Return the AUs of one kind, and the threshold of their presence.

    Args:
        columns: the AU columns of the table.
        cells: their numbers.
        tool: who wrote them.
        requested: a kind, or "auto": presence where there is any, else probability, else intensity.
        threshold: None for 0.5 for presence and probability, 1 (FACS's A) for an intensity from 0
            to 5, 0.1 for FaceReader's numbers from 0 to 1.
        place: file and line of each row, for errors.

    Raises:
        ValueError: there is no column of that kind, or a number out of the range of its kind.
    """
    kinds = [_kind_of(column, cells, tool) for column in columns]
    first = next((kind for kind in KINDS if kind in kinds), None)
    chosen = first if requested == "auto" else requested
    use = [column for column, kind in zip(columns, kinds, strict=True) if kind == chosen]
    if chosen is None or not use:
        raise ValueError(
            f"{place[0] if place else 'table'}: au_kind must be a kind that the table holds "
            f"({', '.join(sorted({kind for kind in kinds if kind}))}), got {requested!r}"
        )
    values = np.column_stack([_scaled(column, cells[column.index], tool) for column in use])
    _check(values, chosen, use, place)
    if threshold is None:
        threshold = _threshold(chosen, tool, values)
    names = tuple(_name(column, tool) for column in use)
    others = dict.fromkeys(_name(column, tool) for column in columns)
    return Reading(names, values, chosen, threshold, tuple(n for n in others if n not in names))


def _name(column: AUColumn, tool: Tool) -> str:
    return f"AU{OPENFACE3_AUS[column.number]:02d}" if tool == "openface3" else column.name


def _kind_of(column: AUColumn, cells: Mapping[int, Numbers], tool: Tool) -> Kind:
    if column.form in _NAMED:
        return _NAMED[column.form]
    if tool in _PLAIN:
        return _PLAIN[tool]
    known = np.concatenate([numbers[~np.isnan(numbers)] for numbers in cells.values()])
    if np.isin(known, (0.0, 1.0, *UNKNOWN_CODES)).all():
        return "presence"
    return "probability" if known.max(initial=0.0) <= 1 + _SLACK else "intensity"


def _scaled(column: AUColumn, numbers: Numbers, tool: Tool) -> Numbers:
    if column.form == "percent":
        return numbers / 100
    if column.form == "evidence":  # FACET: the decimal logarithm of the odds
        return 1 / (1 + 10.0 ** -np.clip(numbers, -30, 30))
    return numbers


def _check(values: Numbers, kind: Kind, columns: Sequence[AUColumn], place: Sequence[str]) -> None:
    """Set codes of unknown presence to NaN; raise for numbers that are not of their kind."""
    if kind == "presence":
        values[np.isin(values, UNKNOWN_CODES)] = np.nan
        wrong, expected = ~np.isin(values, (0.0, 1.0)), "0, 1, or -1, 9 or 999 for unknown"
    elif kind == "probability":
        wrong, expected = (values < -_SLACK) | (values > 1 + _SLACK), "from 0 to 1"
    else:
        wrong, expected = values > 5.5, "from 0 to 5"
    wrong &= ~np.isnan(values)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{place[row]}: the {kind} of {columns[column].name} must be {expected}, "
            f"got {values[row, column]:g}"
        )


def _threshold(kind: Kind, tool: Tool, values: Numbers) -> float:
    if kind != "intensity":
        return 0.5
    unit_scale = tool == "facereader" and np.nanmax(values, initial=0.0) <= 1
    return _FACEREADER_ACTIVE if unit_scale else 1.0
