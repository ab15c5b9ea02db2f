"""Benchmark results: the table, the page with its plots, the regression check, the floors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aurel import ops

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ABOUT = {
    "device": "a processor",
    "threads": 2,
    "clock": "wall",
    "torch": "2.11.0",
    "date": "2026-01-01",
    "bytes_per_second": 25e9,
    "operations_per_second": 0.5e12,
}


def row(nodes: int, aurel: float, **peers: float) -> dict[str, Any]:
    sides = {"aurel": aurel, **peers}
    return {
        "op": "knn graph",
        "size": {"B": 2, "N": nodes},
        "mode": "training",
        "ms": sides,
        "floor_ms": aurel / 4,
        "peak_mib": {side: 2 * value for side, value in sides.items()},
    }


RUN = {"run": ABOUT, "rows": [row(n, n, eager=3.0 * n, cluster=20.0 * n) for n in (4, 8, 16, 32)]}


def module(name: str) -> ModuleType:
    """Import a file of the benchmarks, which are not a package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def compare(new: dict[str, Any], folder: Path, capsys: Any, monkeypatch: Any) -> tuple[int, str]:
    """Compare a run with `RUN`; return the exit status and the output."""
    for name, run in (("new", new), ("committed", RUN)):
        (folder / f"{name}.json").write_text(json.dumps(run))
    files = [str(folder / "new.json"), str(folder / "committed.json")]
    monkeypatch.setattr(sys, "argv", ["regression.py", *files])
    return module("regression").main(), "".join(capsys.readouterr())


def test_a_slower_machine_is_no_regression(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    new = deepcopy(RUN)
    for each in new["rows"]:
        each["ms"] = {side: 10 * value for side, value in each["ms"].items()}
    status, output = compare(new, tmp_path, capsys, monkeypatch)
    assert status == 0 and output.startswith("8 ratios compared, 0 decreased")


def test_a_lead_that_shrinks_is_a_regression(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    new = deepcopy(RUN)
    new["rows"][1]["ms"]["aurel"] *= 1.4  # within the limit of noise
    assert compare(new, tmp_path, capsys, monkeypatch)[0] == 0
    new["rows"][1]["ms"]["aurel"] *= 1.4
    status, output = compare(new, tmp_path, capsys, monkeypatch)
    assert status == 1 and "8 ratios compared, 2 decreased" in output
    assert "knn graph | B=2 N=8 | training | eager: 3.00x before, 1.53x now" in output


def test_rows_that_are_missing_are_counted(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    new = deepcopy(RUN)
    del new["rows"][2:], new["rows"][0]["ms"]["cluster"]
    status, output = compare(new, tmp_path, capsys, monkeypatch)
    assert (
        status == 0
        and "3 ratios compared" in output
        and "5 of the committed run were not" in output
    )
    status, output = compare({"run": ABOUT, "rows": []}, tmp_path, capsys, monkeypatch)
    assert status == 1 and "no row in common" in output


def test_the_table_has_a_line_a_row() -> None:
    rows = [row(4, 2.0, eager=3.0), row(8, 0.05, cluster=20.0) | {"floor_ms": None}]
    _, head, first, second = module("table").text_table({"run": ABOUT, "rows": rows}).splitlines()
    assert head.split("  ")[0] == "op" and head.endswith("peak MiB")
    assert "3.000 (1.5x)" in first and "4.0" in first and first.endswith("4.0 / 6.0")
    assert "0.0500" in second and "20.0 (400.0x)" in second and second.endswith("0.1 / 40.0")


def test_the_table_shows_differences_and_the_memory_of_the_floor() -> None:
    rows = [
        row(4, 2.0, eager=3.0) | {"differing": {"eager": 0.0}, "floor_level": "L2"},
        row(8, 2.0, eager=3.0) | {"differing": {"eager": 2e-5}, "floor_level": "memory"},
    ]
    gpu = {
        "threads": None,
        "cache_size": 2**25,
        "cache_bytes_per_second": 8e12,
        "tensor_operations_per_second": 150e12,
    }
    about, head, first, second = (
        module("table").text_table({"run": ABOUT | gpu, "rows": rows}).splitlines()
    )
    assert "150.0 TFLOP/s by three tf32 products, 8000 GB/s in L2 up to 32 MiB" in about
    assert head.split("  ")[-1] == "peak MiB" and "  differ  " in head
    assert first.split()[-6:] == ["4.0", "(L2)", "0", "4.0", "/", "6.0"]
    assert second.split()[-5:] == ["4.0", "2e-05", "4.0", "/", "6.0"]


def test_floors_are_taken_at_the_memory_that_holds_the_tensors() -> None:
    ceilings = module("ceilings")
    floor = ceilings.Floor
    plain = ceilings.Ceilings(bytes=1e12, operations=5e13)
    assert plain.milliseconds(floor(1e9)) == 1.0 and plain.level(floor(1.0)) == "memory"
    assert plain.milliseconds(floor(1e9, 1e11)) == 2.0
    gpu = ceilings.Ceilings(1e12, 5e13, 1e14, cache_bytes=4e12, cache_size=1e7)
    assert gpu.level(floor(1e7)) == "L2" and gpu.milliseconds(floor(1e7)) == 0.0025
    assert gpu.level(floor(2e7)) == "memory" and gpu.milliseconds(floor(2e7)) == 0.02
    assert gpu.milliseconds(floor(1e7, 1e12)) == 10.0


def test_the_time_of_a_step_is_that_of_one_of_many() -> None:
    measure = module("measure")
    timer = measure.Timer(torch.device("cpu"))
    ticks = iter([0.0, 6.0])
    timer.clock = lambda: next(ticks)
    assert timer.seconds(measure.Prepared(lambda: None, steps=3)) == 2.0


def test_a_short_step_is_repeated_in_one_measurement() -> None:
    measure = module("measure")
    timer = measure.Timer(torch.device("cpu"))
    runs = []
    ticks = iter([0.0, 1e-3, 0.0, 10e-3])
    timer.clock = lambda: next(ticks)
    prepared = timer.prepare(lambda: runs.append(1))
    assert prepared.steps == 5 and len(runs) == 1
    assert timer.seconds(prepared) == 2e-3 and len(runs) == 6


def test_a_run_is_never_half_written(tmp_path: Path) -> None:
    write_run, path = module("journal").write_run, tmp_path / "new" / "run.json"
    write_run(path, ABOUT, RUN["rows"])
    assert json.loads(path.read_text()) == RUN
    with pytest.raises(TypeError):
        write_run(path, ABOUT, [{"op": object()}])
    assert json.loads(path.read_text()) == RUN


def test_the_page_has_plots_of_sizes_that_vary(tmp_path: Path) -> None:
    (tmp_path / "cpu.json").write_text(json.dumps(RUN))
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    script = [sys.executable, BENCHMARKS / "report.py", tmp_path / "cpu.json", "--page", page]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "| B=2 N=32 | training | 32.0 | 96.0 (3.0x) | 640.0 (20.0x) | 4.0 |" in text
    plots = list(page.parent.rglob("*.png"))
    assert len(plots) == 1 and f"({plots[0].relative_to(page.parent)})" in text


def test_committed_results_make_a_page() -> None:
    """Format all result files of `make bench-report`."""
    files = list((BENCHMARKS / "results").glob("*.json"))
    assert files
    for file in files:
        run = json.loads(file.read_text())
        assert len(module("table").text_table(run).splitlines()) == 2 + len(run["rows"])


def test_sides_that_disagree_are_found() -> None:
    disagreement = module("measure").disagreement
    expected = [torch.arange(8.0), (torch.ones(2),)]
    assert disagreement([torch.arange(8.0) + 1e-4, (torch.ones(2),)], expected, 1e-3) == 0
    assert disagreement([torch.arange(8.0), (torch.tensor([1.0, 2.0]),)], expected, 1e-3) == 0.1
    with_nan = torch.arange(8.0).where(torch.arange(8) != 3, torch.nan)
    assert disagreement([with_nan, (torch.ones(2),)], expected, 1e-3) == 0.1


def test_host_times_stand_beside_saved_ones() -> None:
    host_time = module("host_time")
    short = {"op": {"forward": 10.0, "training": 50.0}}
    slow = {"op": {"forward": 20.0, "training": 75.0}}
    saved = [{"label": "before", "us": {"op": {"training": 100.0}}}]
    lines = host_time.table(short, slow, {"op": (1, 3)}, saved).splitlines()
    assert lines[0].split() == ["op", "pass", "launches", "short", "operator", "before"]
    assert lines[1].split() == ["op", "forward", "1", "10.0", "20.0", "(2.0x)"]
    assert lines[2].split() == ["op", "training", "3", "50.0", "75.0", "(1.5x)", "100.0", "(2.0x)"]
    for line in host_time.SAVED.read_text().splitlines():
        assert set(json.loads(line)["us"]) == {name for name, *_ in host_time.cases()}


@pytest.mark.parametrize("op", [name for name in ops.__all__ if name.islower()])
def test_every_op_is_measured(op: str) -> None:
    if op != "use_backend":
        assert f"def test_{op}(" in (BENCHMARKS / "bench_ops.py").read_text()
