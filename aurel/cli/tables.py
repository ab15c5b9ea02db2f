"""Scores as tables on the terminal and as JSON."""

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
    """Return a table of the scores of a task: a row an AU, where there are any, and the mean."""
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
    """Return scores with three decimals, a dash where there is none."""
    return ["-" if math.isnan(row[key]) else f"{row[key]:.3f}" for key in keys]


def write_json(path: Path, content: Any) -> None:
    """Write JSON with null where a score is not a number."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
