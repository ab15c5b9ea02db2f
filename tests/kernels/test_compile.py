"""Every kernel compiles, without spilling, within the shared memory of a GPU."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

import aurel.kernels.triton
from aurel.kernels.triton.instruction_counts import BEFORE, beside, calls, count, table
from aurel.kernels.triton.report import Row, modules, ptxas_usage


def sources() -> str:
    """Return a digest of all that the output of the compilers depends on."""
    digest = hashlib.sha256(triton.__version__.encode())
    for file in sorted(Path(aurel.kernels.triton.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


# Of NVIDIA's and AMD's GPUs those with the least shared memory; `make kernels-report` compiles all
# examples for all targets.
TIGHTEST = ("sm_80", "gfx942")


@pytest.mark.slow
def test_every_kernel_for_the_tightest_targets(pytestconfig: pytest.Config) -> None:
    """One launch of each kernel; the answer is kept until a kernel, or Triton, changes."""
    cache, key = getattr(pytestconfig, "cache", None), sources()
    before = cache.get("aurel/kernels", {}) if cache else {}
    report = before.get("report") if before.get("sources") == key else None
    if report is None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRITON")}
        command = [sys.executable, "-m", "aurel.kernels.triton.report", "--once", *TIGHTEST]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
        report = run.stdout
    rows = [line.split() for line in report.splitlines() if "_kernel" in line]
    kernels = {row[0] for row in rows}
    assert {(row[0], row[1]) for row in rows} == {(k, t) for k in kernels for t in TIGHTEST}
    assert len(kernels) >= len(modules())
    assert all(int(registers) > 0 for _, _, registers, *_ in rows)
    if cache:
        cache.set("aurel/kernels", {"sources": key, "report": report})


def test_a_spill_or_too_much_shared_memory_is_a_defect() -> None:
    def row(spills: int, kib: float, target: str) -> Row:
        return Row("kernel", target, "", 128, spills, int(kib * 1024))

    assert row(0, 163, "sm_80").defect() is None
    assert row(8, 1, "sm_80").defect() == "spills"
    for target, kib in (("sm_80", 163), ("sm_90", 227), ("sm_100", 227), ("gfx942", 64)):
        assert row(0, kib + 1, target).defect() == "too much shared memory"


def test_the_log_of_ptxas_is_read_kernel_by_kernel() -> None:
    log = """ptxas info    : Compiling entry function 'a' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers"""
    assert ptxas_usage(log) == [(40, 0), (128, 12)]


def test_modules_with_examples_are_found() -> None:
    names = {module.__name__.rsplit(".", 1)[1] for module in modules()}
    folder = Path(aurel.kernels.triton.__file__).parent
    launching = {path.stem for path in folder.glob("*.py") if "@triton.jit" in path.read_text()}
    assert {"knn_max_relative", "graph_attention", "pair_pool", "edge_update"} <= names
    assert names & launching and "report" not in names and "launch" not in names


ASSEMBLY = """
        .section        .text.kernel,"ax",@progbits
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 EXIT ;
.L_x_1:
        /*0020*/                   LDG.E.64 R2, desc[UR4][R2.64] ;
.L_x_0:
        /*0030*/                   FFMA R0, R2, R3, R0 ;
        /*0040*/              @!P1 BRA `(.L_x_0) ;
        /*0050*/               @P2 BRA `(.L_x_1) ;
        /*0060*/               @P3 BRA `(.L_x_2) ;
        /*0070*/                   STG.E desc[UR4][R4.64], R0 ;
.L_x_2:
        /*0080*/                   EXIT ;
.L_x_3:
        /*0090*/                   BRA `(.L_x_3);
        /*00a0*/                   NOP;
"""


def test_instructions_are_counted_and_those_in_loops() -> None:
    """Two nested loops hold four instructions; a branch ahead and the last one close none."""
    assert count(ASSEMBLY) == (10, 4)
    assert count("") == (0, 0)


def test_counts_stand_beside_those_of_a_past_version() -> None:
    assert beside(200, 50).split() == ["200", "50", "0.25"]
    assert beside(None, 50).split() == ["50"] and beside(0, 5).split() == ["0", "5"]
    before = {"revision": "abc", "date": "2026-01-01", "triton": "3.6.0", "counts": {}}
    before["counts"] = {"op": {"N=4": [100, 40]}}
    text = table({("op", "N=4"): (50, 10), ("op_backward", "N=4"): (7, 0)}, before).splitlines()
    assert text[3].split() == ["op", "N=4", "100", "50", "0.50", "40", "10", "0.25"]
    assert text[4].split() == ["op_backward", "N=4", "7", "0"]


def test_every_headline_has_a_count_of_a_past_version() -> None:
    counts = json.loads(BEFORE.read_text())["counts"]
    assert {(op, size) for op, sizes in counts.items() for size in sizes} == {
        name for name, _ in calls()
    }
