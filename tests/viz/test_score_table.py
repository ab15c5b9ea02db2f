"""The table of scores."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("rich")

from rich.console import Console

from aurel.viz.tables import score_table


def test_a_row_an_au_and_the_mean_of_what_is_defined() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    scores = {"F1": [0.5, 1.0], "AUC": [0.7, float("nan")], "positives": [12, 30]}
    console.print(score_table(["AU01", "AU12"], scores, title="fold 1"))
    lines = console.export_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip("│┃").split("│")] for line in lines if "│" in line
    ]
    assert cells[0] == ["AU01", "0.500", "0.700", "12"]
    assert cells[1] == ["AU12", "1.000", "-", "30"]
    assert cells[2] == ["mean", "0.750", "0.700", "21"]


def test_a_score_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="'F1'"):
        score_table(["AU01", "AU12"], {"F1": [0.5]})
