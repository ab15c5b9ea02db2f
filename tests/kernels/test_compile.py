"""Every kernel compiles for every target, without spilling, with the shared memory there is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import aurel_kernels
import pytest
import triton
from aurel_kernels.report import MODULES, TARGETS, Row, ptxas_usage


def sources() -> str:
    """Return a digest of all that decides what the compilers answer."""
    digest = hashlib.sha256(triton.__version__.encode())
    for file in sorted(Path(aurel_kernels.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def test_every_kernel_for_every_target(pytestconfig: pytest.Config) -> None:
    """It takes minutes, so the answer is kept until a kernel, or Triton, changes."""
    cache, key = getattr(pytestconfig, "cache", None), sources()
    before = cache.get("aurel/kernels", {}) if cache else {}
    report = before.get("report") if before.get("sources") == key else None
    if report is None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRITON")}
        command = [sys.executable, "-m", "aurel_kernels.report"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
        report = run.stdout
    rows = [line.split() for line in report.splitlines() if "_kernel" in line]
    kernels = {row[0] for row in rows}
    assert {(row[0], row[1]) for row in rows} == {(k, t) for k in kernels for t in TARGETS}
    assert len(kernels) >= len(MODULES)
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
