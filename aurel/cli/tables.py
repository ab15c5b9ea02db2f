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


def score_table(scores: Scores, title: str) -> Table:
    """Return a table of what `AUScores` computes: a row an AU, and the mean."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("AU")
    for name in ("F1", "accuracy", "AUC", "positives", "known"):
        table.add_column(name, justify="right")
    for name, row in scores.items():
        if name != "mean":
            counts = [f"{row['positives']:.0f}", f"{row['known']:.0f}"]
            table.add_row(name, *numbers(row, ("f1", "accuracy", "auc")), *counts)
    table.add_section()
    table.add_row("mean", *numbers(scores["mean"], ("f1", "accuracy", "auc")), style="bold")
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
