"""Processes that predict units of work, of which some die."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("av")

from aurel.vision.inputs import FoundFile
from aurel.vision.manifest import Outcome
from aurel.vision.units import MediaTask
from aurel.vision.workers import Run, run_in_processes


def unit(*names: str) -> tuple[MediaTask, ...]:
    return tuple(MediaTask(FoundFile(Path(name)), name, True) for name in names)


def predict(fatal: str, unit: tuple[MediaTask, ...]) -> list[Outcome]:
    if any(task.name == fatal for task in unit):
        os.kill(os.getpid(), signal.SIGKILL)
    return [Outcome(str(task.file.path), "done", task.name) for task in unit]


def make(fatal: str) -> Run[MediaTask]:
    return partial(predict, fatal)


def broken() -> Run[MediaTask]:
    raise ValueError("no such checkpoint")


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_own_input_alone() -> None:
    units = [unit("a", "b", "c"), unit("d")]
    found = [o for outcomes in run_in_processes(partial(make, "b"), units, 2) for o in outcomes]
    assert {o.input: o.status for o in found} == {
        **dict.fromkeys("acd", "done"),
        "b": "failed",
    }
    (failed,) = (outcome for outcome in found if outcome.status == "failed")
    assert failed.reason.startswith("b cannot be finished: its process was killed")


def test_an_error_of_the_model_ends_the_run() -> None:
    with pytest.raises(ValueError, match="no such checkpoint"):
        list(run_in_processes(broken, [unit("a"), unit("b")], 1))
