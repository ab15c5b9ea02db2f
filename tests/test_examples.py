"""Every example runs and writes its pictures."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
FILES = {
    "03_train_and_draw_the_graph": {"predictions.png", "graph.png"},
    "05_analyze_an_au_table": {"correlations.png", "together.png"},
}
MOST_LINES = 60

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@pytest.mark.slow
@every_example
def test_example_runs_and_writes_its_pictures(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    with plt.rc_context({"backend": "agg"}):
        runpy.run_path(str(example), run_name="__main__")
        plt.close("all")
    assert {path.name for path in tmp_path.iterdir()} == FILES.get(example.stem, set())


@every_example
def test_example_is_short_and_has_a_title(example: Path) -> None:
    text = example.read_text()
    title, underline = (ast.get_docstring(ast.parse(text)) or "").split("\n")[:2]
    assert len(underline) == len(title) and set(underline) == {"="}
    assert len(text.splitlines()) < MOST_LINES


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("frame, success, AU06_r, AU06_c, AU12_c, AU45_c", ["1,1,2.5,1,1,0", "2,1,0,0,0,0"]),
        ("input,face,AU06,AU12,AU06_present,AU12_present", ["a,0,.9,.8,1,1", "a,1,.1,.2,0,0"]),
        ("frame,AU06,AU12", ["0,.93,.71", "1,.02,.11", "2,,"]),
    ],
    ids=["openface", "aurel", "py-feat"],
)
def test_table_example_reads_the_tables_of_other_programs(
    header: str,
    rows: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "faces.csv"
    table.write_text("\n".join([header, *rows, rows[0]]) + "\n")
    example = next(path for path in EXAMPLES if path.stem == "05_analyze_an_au_table")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), str(table)])
    runpy.run_path(str(example))
    assert capsys.readouterr().out.startswith(f"{len(rows) + 1} rows of ")
    assert (tmp_path / "together.png").stat().st_size > 0
