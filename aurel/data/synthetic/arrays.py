"""Array types, and tables of random columns with a row for each picture."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
DoubleArray = NDArray[np.float64]
Table = TypeVar("Table")


def uniform(low: float, high: float) -> Any:
    """Declare a column that is uniform on [low, high]."""
    return field(metadata={"law": (low, high, False)})


def triangular(half_width: float, mode: float = 0.0) -> Any:
    """Declare a column with a symmetric triangular density, zero beyond `mode` +- `half_width`."""
    return field(metadata={"law": (mode - half_width, mode + half_width, True)})


def numbers_needed(table: type) -> int:
    """Return the number of uniform random numbers for a row of `table`."""
    return 2 * len(_laws(table))


def make_table(table: type[Table], numbers: DoubleArray) -> Table:
    """Return a table of (n,) float32 columns from uniform numbers (n, numbers_needed(table))."""
    columns = {}
    for index, column in enumerate(_laws(table)):
        low, high, is_triangular = column.metadata["law"]
        share = numbers[:, 2 * index]
        if is_triangular:
            share = (share + numbers[:, 2 * index + 1]) / 2
        columns[column.name] = (low + (high - low) * share).astype(np.float32)
    return table(**columns)


def rows(table: Table, index: Any) -> Table:
    """Return the same table with some of its rows."""
    return type(table)(**{c.name: getattr(table, c.name)[index] for c in _columns(table)})


def join(tables: list[Table]) -> Table:
    """Return one table with the rows of all of them."""
    return type(tables[0])(
        **{
            c.name: np.concatenate([getattr(table, c.name) for table in tables])
            for c in _columns(tables[0])
        }
    )


def _columns(table: Any) -> tuple[Field[Any], ...]:
    return fields(table)


def _laws(table: Any) -> list[Field[Any]]:
    return [column for column in fields(table) if "law" in column.metadata]
