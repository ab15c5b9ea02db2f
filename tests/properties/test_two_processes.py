"""Two processes with synchronized norms compute what one computes of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import two_processes
from helpers.graph_forms import assert_close
from helpers.layer_cases import made
from two_processes import SHARES, batches

RUNS = [name if mask is None else f"{name}-masked" for name, _, mask in batches()]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("two_processes")
    files = [folder / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, two_processes.__file__, str(rank), str(folder / "meeting"), str(file)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(file) for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("index", range(len(RUNS)), ids=RUNS)
def test_two_processes_learn_as_one(halves: list[dict[Any, Any]], share: str, index: int) -> None:
    name, inputs, mask = batches()[index]
    expected = two_processes.result(made(name), name, inputs, mask, slice(None))
    first, second = (half[share, index] for half in halves)
    for kind in ("outs", "inputs"):
        for a, b, whole in zip(first[kind], second[kind], expected[kind], strict=True):
            if whole is None:
                assert a is None and b is None
            else:
                assert_close(torch.cat([a, b]), whole, 1e-8, 1e-8)
    for key, whole in expected["parameters"].items():
        a, b = first["parameters"][key], second["parameters"][key]
        assert_close(a + b, whole, 1e-8, 1e-8)
    for key, whole in expected["buffers"].items():
        assert_close(first["buffers"][key], whole)
        assert_close(second["buffers"][key], whole)


def test_norms_that_torch_synchronizes_on_gpus_only_are_refused_elsewhere(
    halves: list[dict[Any, Any]],
) -> None:
    for half in halves:
        assert "SyncBatchNorm expected input tensor to be on GPU" in half["refused"]
