"""Compiled kernels on disk: loaded again, compiled anew after a change, and optional."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import aurel.kernels.cpu
from aurel.kernels.cpu import neighbor_aggregate

PACKAGE = Path(aurel.kernels.cpu.__file__).parent

# The gradient of sums in one graph of 32 channels: a small kernel that calls functions of a file.
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from aurel.kernels.cpu import neighbor_aggregate
lists = torch.tensor([[[0, 1], [1, 1]]])
grad = torch.tensor([1.0, 3.0])[None, :, None].expand(1, 2, 32)
total = neighbor_aggregate.backward(grad, lists, lists[:, :0].byte(), 2, "sum")
hits = neighbor_aggregate.transposed_sums.sum_over_lists.stats.cache_hits
print(total[0, :, 0].tolist(), sum(hits.values()))
"""


def run_copy(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_change_of_any_file_compiles_anew(tmp_path: Path) -> None:
    copy = tmp_path / "aurel" / "kernels" / "cpu"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE.parent / "winners.py", copy.parent)
    for package in (copy.parent, copy.parents[1]):
        (package / "__init__.py").touch()
    assert run_copy(tmp_path) == "[1.0, 7.0] 0"
    assert run_copy(tmp_path) == "[1.0, 7.0] 1"
    text = (copy / "row_sums.py").read_text()
    assert "builder.fmul(total, common)" in text
    changed = "builder.fmul(total, builder.fadd(common, common))"
    (copy / "row_sums.py").write_text(text.replace("builder.fmul(total, common)", changed))
    assert run_copy(tmp_path) == "[2.0, 14.0] 0"


def test_a_kernel_releases_the_interpreter() -> None:
    assert neighbor_aggregate.forward_rows.targetoptions["nogil"]


def test_without_a_folder_to_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from aurel.kernels.cpu import compiler

    real = compiler.njit

    def refuse(cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(compiler, "njit", refuse)
    double = compiler.kernel(lambda x: 2 * x)
    assert double(3) == 6
