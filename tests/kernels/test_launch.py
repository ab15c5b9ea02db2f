"""The cache of compiled kernels behind `launch`, with a driver whose launches do nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("launch_cases.py")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the cases once, in a process where Triton compiles."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRITON")}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "case",
    [
        "a second launch skips Triton",
        "a direct launch passes what Triton passes",
        "the grid may change",
        "an empty grid launches nothing",
        "a launch of fixed sizes passes what Triton passes",
        "a launch of fixed sizes knows the device, and compile_only",
        "each specialization has a kernel of its own",
        "launches with different constants and options differ",
        "each device has kernels of its own",
        "constants given by position are not cached",
        "a profiler is called",
        "compile_only runs nothing, whatever is in the cache",
    ],
)
def test_launch(case: str, answers: dict[str, str]) -> None:
    assert answers[case] == "ok"
