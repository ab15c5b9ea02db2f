"""Scores as tables in the terminal and as JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurel.files import atomic_path

try:
    from rich.table import Table
except ImportError as error:
    raise ImportError("tables need rich: pip install 'aurel-au[viz]'") from error

Scores = Mapping[str, Mapping[str, float]]

_HEADINGS = {"f1": "F1", "auc": "AUC"}


def score_table(scores: Scores, title: str) -> Table:
    """Return a table of scores: a row for each AU, if there are AUs, and the mean."""
    aus = {name: row for name, row in scores.items() if name != "mean"}
    keys = [key for key in ("f1", "accuracy", "auc") if key in scores["mean"]]
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


def numbers(row: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    """Return scores with three decimals, or a dash for NaN."""
    return ["-" if math.isnan(row[key]) else f"{row[key]:.3f}" for key in keys]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, with null for numbers that are not finite."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
