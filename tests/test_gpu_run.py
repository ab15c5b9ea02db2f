"""The run on a GPU, tested with other commands: limits, kills, the journal and the summary."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def module(name: str) -> ModuleType:
    """Import a file of the benchmarks, which are not a package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); print('before'); "
        "time.sleep(60)"
    )
    start = time.monotonic()
    commands = {"hangs": python(code), "quick": python("print('hello')")}
    outcomes = module("processes").run(commands, tmp_path / "log", 2.0)
    assert time.monotonic() - start < 20
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("quick", 0),
        ("hangs", None),
    ]
    assert outcomes[1].tail == "before\n"
    lines = (tmp_path / "log").read_text().splitlines()
    assert sorted(lines) == ["[hangs] before", "[quick] hello"]
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)


def test_children_do_not_outlive_a_command_that_ends(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); sys.exit(4)"
    )
    start = time.monotonic()
    (outcome,) = module("processes").run({"ends": python(code)}, tmp_path / "log", 30.0)
    assert outcome.status == 4 and time.monotonic() - start < 20
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_stalled_command_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    (outcome,) = module("processes").run(
        {"stalls": python("import time; time.sleep(60)")},
        tmp_path / "log",
        60.0,
        stalled=lambda: time.monotonic() - start > 1,
    )
    assert outcome.status is None and time.monotonic() - start < 20


def test_a_journal_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    journal = module("journal").Journal(tmp_path / "rows.jsonl")
    assert journal.started() == [] and journal.run() is None
    journal.write("collected", ids=["a", "b", "c", "d"])
    journal.write("start", id="a")
    journal.write("row", {"device": "x"}, row={"op": "first"})
    journal.write("end", id="a")
    journal.write("start", id="b")
    journal.close_last("it hung")
    journal.write("start", id="c")
    journal.close_last(None)
    assert journal.started() == ["a", "b"] and journal.ids("fail") == {"b"}
    journal.write("start", id="c")
    assert journal.started() == ["a", "b", "c"]
    with journal.path.open("a") as file:
        file.write('{"event": "row", "ro')  # the process stopped here
    assert journal.run() == {"run": {"device": "x"}, "rows": [{"op": "first"}]}
    assert journal.collected() == ["a", "b", "c", "d"]


def test_headlines_come_first_then_one_size_of_each() -> None:
    def item(name: str, **parameters: Any) -> SimpleNamespace:
        callspec = SimpleNamespace(params=parameters)
        return SimpleNamespace(originalname=name, callspec=callspec, path=Path("bench.py"))

    other = [
        item(name, size={"N": n}, mode=mode)
        for name in ("test_p", "test_q")
        for n in (1, 2)
        for mode in ("forward", "training")
    ]
    headlines = [
        item("test_knn_max_relative", size={"N": nodes}, mode=mode)
        for nodes in (3136, 41)
        for mode in ("forward", "training")
    ]
    plain = SimpleNamespace(originalname="test_r", path=Path("bench.py"))
    got = module("journal").in_order([*other, plain, *headlines])
    assert got[:4] == [*headlines[2:], *headlines[:2]]
    assert got[4:] == [*other[:2], *other[4:6], plain, *other[2:4], *other[6:]]


ROWS = """
import time
import pytest

@pytest.mark.parametrize("size", [{"N": n} for n in range(4)], ids=str)
def test_rows(size, bench):
    if size["N"] == 1:
        time.sleep(HANG)
    assert size["N"] != 2, "wrong"
    bench.add({"op": "rows", "size": size, "mode": "forward", "ms": {"aurel": 1.0},
               "floor_ms": None, "peak_mib": {}})
"""


def run_bench(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hang: float, budget: float
) -> tuple[int, dict[str, list[str]]]:
    """Run `gpu.py bench` on the rows above; return its exit status and its summary."""
    gpu = module("gpu")
    (folder / "benchmarks").mkdir(exist_ok=True)
    rows = folder / "benchmarks" / "bench_rows.py"
    rows.write_text(ROWS.replace("HANG", str(hang)))
    (folder / "pytest.ini").write_text("[pytest]\npython_files = bench_*.py\n")
    ceilings = (
        "import ceilings, conftest\n"
        "conftest.measure_ceilings = lambda timer: ceilings.Ceilings(1e9, 1e9)\n"
    )
    (folder / "few.py").write_text(ceilings)
    monkeypatch.setenv("PYTHONPATH", f"{BENCHMARKS}{os.pathsep}{folder}")
    monkeypatch.setattr(gpu, "ROOT", folder)
    plugins = ["-p", "no:cacheprovider", "-p", "conftest", "-p", "few"]
    monkeypatch.setattr(gpu, "PYTEST", [sys.executable, "-m", "pytest", *plugins])
    monkeypatch.setattr(gpu, "SHORTEST", 4.0)
    monkeypatch.chdir(folder)
    arguments = ["bench", "--device", "cpu", "--out", str(folder / "out")]
    status = gpu.main([*arguments, "--budget", str(budget)])
    names = json.loads((folder / "out" / "summary.json").read_text())
    return status, {kind: [name[-3] for name in ids] for kind, ids in names.items()}


@pytest.mark.slow
def test_a_row_that_hangs_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module("gpu"), "EACH_ROW", 3.0)
    status, names = run_bench(tmp_path, monkeypatch, hang=60, budget=100)
    assert status == 1
    assert names == {"passed": ["0", "3"], "failed": ["1", "2"], "not run": []}
    (results,) = (path for path in (tmp_path / "out").glob("*.json") if path.stem != "summary")
    run = json.loads(results.read_text())
    assert [row["size"] for row in run["rows"]] == [{"N": 0}, {"N": 3}]
    errors = module("journal").Journal(tmp_path / "out" / "rows.jsonl").read("fail")
    assert "hung" in errors[0]["error"] and "wrong" in errors[1]["error"]
    assert "2 failed: " in capsys.readouterr().out


@pytest.mark.slow
def test_rows_that_the_budget_cuts_are_named_and_run_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    status, names = run_bench(tmp_path, monkeypatch, hang=60, budget=25)
    assert time.monotonic() - start < 40
    assert status == 3
    assert names == {"passed": ["0"], "failed": [], "not run": ["1", "2", "3"]}
    status, names = run_bench(tmp_path, monkeypatch, hang=0, budget=60)
    assert status == 1
    assert names == {"passed": ["0", "1", "3"], "failed": ["2"], "not run": []}


def test_stages_share_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are measured although tests fail, and rows without time are listed."""
    gpu = module("gpu")
    outcome = module("processes").Outcome
    limits: dict[str, float] = {}

    def run(commands: dict[str, list[str]], log: Path, seconds: float, *_: Any, **__: Any) -> Any:
        limits[log.stem] = seconds
        status = {"tests": 1, "sanitizer": None, "bench": 0}[log.stem]
        return [outcome(name, status, 1.0, "end\n") for name in commands]

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: name)
    journal = module("journal").Journal(tmp_path / "rows.jsonl")
    journal.write("collected", ids=["a", "b"])
    journal.write("start", id="a")
    journal.write("end", id="a")
    monkeypatch.chdir(tmp_path)
    arguments = ["all", "--out", str(tmp_path), "--budget", "500"]
    assert gpu.main(arguments) == 1
    names = json.loads((tmp_path / "summary.json").read_text())
    assert "test_cuda" in names["failed"] and "test_compile" not in names["failed"]
    assert names["passed"] == ["a"]
    assert set(names["not run"]) == {"memcheck", "racecheck", "synccheck", "initcheck", "b"}
    assert limits["tests"] == pytest.approx(200, abs=5)
    assert limits["sanitizer"] == pytest.approx(100, abs=5)
    assert limits["bench"] == pytest.approx(500, abs=5)


def test_only_kernels_in_triton_are_checked_for_races() -> None:
    gpu = module("gpu")
    pattern = gpu.OWN_KERNELS[1].removeprefix("regex=")
    own = importlib.import_module("re").compile(pattern)
    assert own.search("forward_kernel") and own.search("knn_aggregate_kernel")
    assert not own.search("_ZN2at6native29vectorized_elementwise_kernelILi4E")
    assert not own.search("void at::native::reduce_kernel<512, 1>")
    assert gpu.TOOLS["racecheck"] == gpu.TOOLS["synccheck"] == gpu.OWN_KERNELS
