"""Tables of scores for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

try:
    from rich.table import Table
except ImportError as error:
    raise ImportError("tables need rich: pip install 'aurel-au[viz]'") from error


def score_table(
    names: Sequence[str], scores: Mapping[str, Sequence[float]], title: str | None = None
) -> Table:
    """Return a table of scores, a row an AU and a column a score, with the means below.

    Args:
        names: N names of AUs.
        scores: for each score's name its N values; NaN where it is undefined, which is shown as a
            dash and left out of the mean.
        title: a line above the table.

    Raises:
        ValueError: a score without N values.
    """
    table = Table(title=title, show_footer=True)
    table.add_column("AU", footer="mean")
    for score, values in scores.items():
        if len(values) != len(names):
            raise ValueError(
                f"scores[{score!r}] must have {len(names)} values, one a name, got {len(values)}"
            )
        table.add_column(score, justify="right", footer=_cell(_mean(values)))
    for index, name in enumerate(names):
        table.add_row(name, *(_cell(float(values[index])) for values in scores.values()))
    return table


def _mean(values: Sequence[float]) -> float:
    defined = [float(value) for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if value.is_integer() and abs(value) > 1 else f"{value:.3f}"
