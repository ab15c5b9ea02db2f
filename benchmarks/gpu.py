"""Test the kernels on a CUDA GPU, check them with compute-sanitizer, measure them.

    PYTHONPATH=. python benchmarks/gpu.py all --out build/gpu --budget 540

A rented GPU may be withdrawn at any time, so all results are written to `--out` at once: every line
that a command prints, every row and the summary. A command that exceeds its limit is killed; the
run ends within `--budget`. Rows are measured also if tests fail, the headlines first; `bench` with
the same `--out` continues with the rows that were not started.

Files: tests.log, sanitizer.log, bench.log (all that was printed), rows.jsonl (events and rows),
<device>.json (rows, as `report.py` takes them), summary.json. Exit status 0: all ran and passed; 1:
something failed; 3: nothing failed, but not all ran. The end of the output names both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from journal import Journal, write_run
from processes import Outcome, run

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]
FAILED, INCOMPLETE = 1, 3
SHOWN = 20  # names at the end; all are in summary.json

STAGES = ("tests", "sanitizer", "bench")
SHARES = {"tests": 0.4, "sanitizer": 0.2, "bench": 1.0}  # largest part of the remaining time
FIRST_ROW = 120.0  # seconds from the start of a process to its first row, ceilings included
EACH_ROW = 75.0  # seconds of one row: several compilations by torch.compile
SHORTEST = 20.0  # seconds; no process is started for less time
ALL_RUN = (0, 1, 5)  # exit status of pytest: passed, failed, no row left
RESERVE = 5.0  # seconds for a process to print its table

# Kernels of torch have mangled names (_Z...), kernels in Triton do not.
OWN_KERNELS = ["--kernel-name", "regex=^[a-z][a-z0-9_]*_kernel"]
TOOLS = {
    # Libraries look up functions that the driver may not have: ignore these errors.
    "memcheck": ["--report-api-errors", "no"],
    "racecheck": OWN_KERNELS,
    "synccheck": OWN_KERNELS,
    # Without a filter, because kernels of torch initialize memory, too.
    "initcheck": ["--report-api-errors", "no"],
}


class Summary:
    """Names of the items that passed, failed and were not run, always up to date on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, list[str]] = {"passed": [], "failed": [], "not run": []}

    def add(self, kind: str, *names: str) -> None:
        self.names[kind] += names
        self.path.write_text(json.dumps(self.names, indent=1) + "\n")

    def take(self, outcome: Outcome) -> None:
        """Add a command by its exit status; a stopped command counts as not run."""
        print(f"--- {outcome}", flush=True)
        if outcome.status == 0:
            self.add("passed", outcome.name)
            print(outcome.tail.splitlines()[-1:], flush=True)
            return
        self.add("not run" if outcome.status is None else "failed", outcome.name)
        print(outcome.tail, flush=True)

    def status(self) -> int:
        if self.names["failed"]:
            return FAILED
        return INCOMPLETE if self.names["not run"] else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--budget", type=float, required=True, help="seconds for everything")
    parser.add_argument("--device", default="cuda", help="cpu to test this script")
    parser.add_argument("-k", dest="select", help="run only rows or tests with this name")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.budget
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    summary = Summary(out / "summary.json")
    selected = ["-k", options.select] if options.select else []
    for stage in STAGES if options.stage == "all" else [options.stage]:
        left = deadline - time.monotonic()
        limit = left * (SHARES[stage] if options.stage == "all" else 1.0)
        if limit < SHORTEST:
            summary.add("not run", stage)
            continue
        print(f"=== {stage}: at most {limit:.0f} s", flush=True)
        if stage == "bench":
            bench(out, options.device, selected, limit, summary)
        elif stage == "tests":
            tests(out, selected, limit, summary)
        else:
            sanitizer(out, limit, summary)
    for kind in ("failed", "not run"):
        if summary.names[kind]:
            names = summary.names[kind]
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            print(f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{more}")
    return summary.status()


def tests(out: Path, selected: list[str], limit: float, summary: Summary) -> None:
    """Run all test files in parallel: most of their work is compilation, on one core each."""
    files = sorted(ROOT.glob("tests/kernels/test_*.py"))
    commands = {
        file.stem: [*PYTEST, "-v", *selected, str(file.relative_to(ROOT))]
        for file in files
        if file.stem != "test_compile"
    }
    for outcome in run(commands, out / "tests.log", limit):
        summary.take(outcome)


def sanitizer(out: Path, limit: float, summary: Summary) -> None:
    """Run every kernel once under each tool of compute-sanitizer."""
    if not shutil.which("compute-sanitizer"):
        summary.add("not run", *TOOLS)
        print("compute-sanitizer is not installed")
        return
    common = ["--error-exitcode", "1", "--print-limit", "20"]
    # Do not check the compilers that Triton starts.
    common += ["--target-processes", "application-only"]
    kernels = [sys.executable, "tests/kernels/every_kernel.py"]
    commands = {
        tool: ["compute-sanitizer", "--tool", tool, *common, *own, *kernels]
        for tool, own in TOOLS.items()
    }
    # Allocate separate memory for each tensor.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for outcome in run(commands, out / "sanitizer.log", limit, environment):
        summary.take(outcome)


def bench(out: Path, device: str, selected: list[str], limit: float, summary: Summary) -> None:
    """Measure rows, and start a new process if one hangs or crashes."""
    deadline = time.monotonic() + limit
    journal = Journal(out / "rows.jsonl")
    arguments = ["-q", "--benchmark-quiet", "--rounds", "9", "--device", device]
    arguments += ["--journal", str(journal.path)]
    while (left := deadline - time.monotonic()) > SHORTEST:
        before = journal.started()
        seconds = ["--seconds", str(left - RESERVE)]
        command = [*PYTEST, *arguments, *selected, *seconds, "benchmarks"]
        stalled = partial(_stalled, journal, time.time())
        (outcome,) = run({"bench": command}, out / "bench.log", left, stalled=stalled)
        print(f"--- {outcome}", flush=True)
        out_of_time = outcome.status is None and time.monotonic() > deadline
        journal.close_last(None if out_of_time else "the process hung or died")
        _write_rows(journal, out)
        if outcome.status in ALL_RUN or journal.started() == before:
            print(outcome.tail, flush=True)
            break
    started, failed = journal.started(), journal.ids("fail")
    summary.add("passed", *(name for name in started if name not in failed))
    summary.add("failed", *(name for name in started if name in failed))
    summary.add("not run", *(name for name in journal.collected() if name not in started))
    if not journal.collected():
        summary.add("failed", "bench")


def _stalled(journal: Journal, started: float) -> bool:
    """Return whether a process that started at this time has written no event for too long."""
    changed = journal.path.stat().st_mtime if journal.path.exists() else 0.0
    limit = EACH_ROW if changed > started else FIRST_ROW
    return time.time() - max(changed, started) > limit


def _write_rows(journal: Journal, out: Path) -> None:
    """Write the rows so far to a file of results with the name of the device."""
    so_far = journal.run()
    if so_far is not None:
        slug = re.sub(r"[^a-z0-9]+", "_", so_far["run"]["device"].lower()).strip("_")
        write_run(out / f"{slug}.json", so_far["run"], so_far["rows"])


if __name__ == "__main__":
    sys.exit(main())
