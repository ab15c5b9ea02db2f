"""The tests that mutation tests run exist, for every op."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from aurel.ops.registration import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
SELECTION = runpy.run_path(str(ROOT / "tests/mutation/selection.py"))
FILES = sorted(
    str(file.relative_to(ROOT))
    for floor in ("losses", "ops")
    for file in ROOT.glob(f"aurel/{floor}/*.py")
)


@pytest.mark.parametrize("path", FILES)
def test_every_file_has_tests_and_all_of_them_exist(path: str) -> None:
    stages = SELECTION["tests_of"](path)
    assert stages
    for _, files in stages:
        assert files
        for file in files:
            assert (ROOT / file).is_file(), f"{file}, for {path}, does not exist"


def test_every_operator_is_named() -> None:
    ops = {name for name in OPERATORS if not name.endswith("_backward")}
    missing = sorted(ops - SELECTION["RUNS"].keys())
    assert not missing, f"RUNS of tests/mutation/selection.py lacks {missing}"
    kernels = {name for name in ops if "triton" in OPERATORS[name].kernels}
    assert {name for name, runs in SELECTION["RUNS"].items() if runs} >= kernels
