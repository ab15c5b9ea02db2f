"""Codes of AUs in the owners' files: whole numbers, occurrence, intensity."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.data.owners.options import OwnerOptions
from aurel.facs import AUSet

Codes = NDArray[np.int64]
Labels = NDArray[np.int8]

PRESENT_FROM = 2


def not_coded(aus: AUSet, coded: Collection[int | None]) -> list[str]:
    """Return the AUs that are not among the coded numbers, which have no sides."""
    columns = zip(aus.names, aus.numbers, aus.sides, strict=True)
    return [name for name, number, side in columns if side or number not in coded]


def whole_numbers(
    lines: Sequence[tuple[int, str]], columns: int, file: Path, delimiter: str = ","
) -> Codes:
    """Return numbered lines of whole numbers as an array (n, columns).

    Raises:
        ValueError: another number of columns, or something else than whole numbers; the message
            has the file and the line.
    """
    if not lines:
        return np.zeros((0, columns), dtype=np.int64)
    try:
        table = np.loadtxt([line for _, line in lines], delimiter=delimiter, comments=None, ndmin=2)
    except ValueError:
        table = np.zeros((0, 0))
    if table.shape != (len(lines), columns) or not (table == np.trunc(table)).all():
        for number, line in lines:
            words = line.split(delimiter)
            if len(words) != columns or not all(map(_is_whole, words)):
                raise ValueError(
                    f"{file}, line {number}: a line must have {columns} whole numbers, got {line!r}"
                )
    return table.astype(np.int64)


def check_once(frames: Codes, lines: Sequence[int], file: Path) -> None:
    """Raise ValueError where a frame is twice in a file; `lines` are the numbers of their lines."""
    seen: dict[int, int] = {}
    for frame, place in zip(frames.tolist(), lines, strict=True):
        if frame in seen:
            raise ValueError(
                f"{file}, line {place}: each frame must be once, got {frame}, as in line "
                f"{seen[frame]}"
            )
        seen[frame] = place


def occurrence(codes: Codes, options: OwnerOptions, file: Path, lines: Sequence[int]) -> Labels:
    """Return labels 1, 0, -1 (unknown) of occurrence codes (n, N); `lines` are their numbers."""
    unknown = np.isin(codes, options.unknown)
    _check_codes(codes, unknown | np.isin(codes, (0, 1)), "0, 1", options, file, lines)
    return np.where(unknown, -1, codes).astype(np.int8)


def intensity(codes: Codes, options: OwnerOptions, file: Path, lines: Sequence[int]) -> Labels:
    """Return intensities 0 to 5, -1 unknown, of codes (n, N); `lines` are their numbers."""
    unknown = np.isin(codes, options.unknown)
    valid = unknown | ((codes >= 0) & (codes <= 5))
    _check_codes(codes, valid, "0 to 5", options, file, lines)
    return np.where(unknown, -1, codes).astype(np.int8)


def present(intensities: Labels, options: OwnerOptions) -> Labels:
    """Return labels 1, 0, -1 of intensities: 1 from `options.present`."""
    least = PRESENT_FROM if options.present is None else options.present
    return np.where(intensities < 0, -1, intensities >= least).astype(np.int8)


def _check_codes(
    codes: Codes,
    valid: NDArray[np.bool_],
    allowed: str,
    options: OwnerOptions,
    file: Path,
    lines: Sequence[int],
) -> None:
    if valid.all():
        return
    row, column = np.argwhere(~valid)[0]
    unknown = ", ".join(map(str, options.unknown))
    raise ValueError(
        f"{file}, line {lines[row]}: a code must be {allowed}, or {unknown} for unknown, got "
        f"{codes[row, column]}"
    )


def _is_whole(word: str) -> bool:
    try:
        return float(word).is_integer()
    except ValueError:
        return False
