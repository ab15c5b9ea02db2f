"""The record of an input: a JSON line for each chip, and for each frame without one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aurel.files import atomic_path

IMAGES, RECORDS = "img", "records"
"""Folders of the chips and of the records."""

KINDS = ("jpg", "png")
"""Formats of chips."""

Row: TypeAlias = dict[str, Any]
"""``frame``, ``time``, and either ``reason`` or ``key``, ``person``, ``box``, ``score``,
``matrix``, ``points``, ``landmarks`` and ``by``, the origin of the landmarks."""


def record_path(out: Path, name: str) -> Path:
    """Return the file with the record of an input."""
    return out / RECORDS / f"{name}.jsonl"


def write_record(out: Path, name: str, rows: Iterable[Row]) -> None:
    """Write the record of an input; it is complete or absent."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    with atomic_path(record_path(out, name)) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())


def read_record(out: Path, name: str) -> list[Row]:
    """Return the rows of the record of an input, none if there is no record."""
    path = record_path(out, name)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def remove_results(out: Path, name: str) -> None:
    """Remove the chips in the record of an input, and then the record."""
    for row in read_record(out, name):
        for kind in KINDS if "key" in row else ():
            chip_path(out, row["key"], kind).unlink(missing_ok=True)
    record_path(out, name).unlink(missing_ok=True)


def chip_path(out: Path, key: str, suffix: str) -> Path:
    """Return the file of a chip."""
    return out / IMAGES / f"{key}.{suffix}"


def rounded(values: ArrayLike, digits: int = 3) -> Any:
    """Return numbers as nested lists for JSON, with null for those that are not finite."""
    return _rounded(np.asarray(values, dtype=float).tolist(), digits)


def points_of(values: list[list[float | None]] | None) -> NDArray[np.float32] | None:
    """Return points (P, 2) of a row, NaN for null."""
    return None if values is None else np.array(values, dtype=np.float32)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    return round(value, digits) if math.isfinite(value) else None
