"""Scores as tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from rich.table import Table
except ImportError as error:
    raise ImportError("tables need rich: pip install 'aurel-au[viz]'") from error

Scores = Mapping[str, Mapping[str, float]]

_HEADINGS = {
    "f1": "F1",
    "accuracy": "accuracy",
    "auc": "AUC",
    "ece": "ECE",
    "icc": "ICC",
    "pcc": "PCC",
    "mse": "MSE",
    "mae": "MAE",
}


def score_table(scores: Scores, title: str) -> Table:
    """Return a table of scores: a row for each AU, if there are AUs, and the mean."""
    aus = {name: row for name, row in scores.items() if name != "mean"}
    keys = [key for key in _HEADINGS if key in scores["mean"]]
    counts = ("positives", "known") if aus else ()
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("AU" if aus else "")
    for key in (*keys, *counts):
        table.add_column(_HEADINGS.get(key, key), justify="right")
    for name, row in aus.items():
        table.add_row(name, *numbers(row, keys), *(f"{row[key]:.0f}" for key in counts))
    table.add_section()
    table.add_row("mean", *numbers(scores["mean"], keys), style="bold")
    return table


def group_table(report: Mapping[str, Any], attribute: str) -> Table:
    """Return a table of the F1 of each group of people: a column for each, and the gap.

    Args:
        report: the entry of an attribute in `aurel.training.groups.group_report`.
        attribute: its name, for the title.
    """
    groups, gap = report["groups"], report["gap"]
    table = Table(title=f"F1 by {attribute}", title_justify="left", box=None, pad_edge=False)
    table.add_column("AU")
    for value, entry in groups.items():
        people = "person" if entry["people"] == 1 else "people"
        table.add_column(f"{value} ({entry['people']} {people})", justify="right")
    if gap:
        table.add_column("gap", justify="right")
    columns = [*(entry["f1"] for entry in groups.values()), *([gap] if gap else [])]
    for name in columns[0]:
        if name == "mean":
            table.add_section()
        cells = [numbers(column, [name])[0] for column in columns]
        table.add_row(name, *cells, style="bold" if name == "mean" else "")
    return table


def numbers(row: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    """Return scores with three decimals, or a dash for NaN."""
    return ["-" if math.isnan(row[key]) else f"{row[key]:.3f}" for key in keys]
