"""Units of work on a Ray cluster of two processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("ray")

from aurel.vision.inputs import FoundFile
from aurel.vision.manifest import Outcome
from aurel.vision.ray_workers import run_on_ray
from aurel.vision.units import MediaTask
from aurel.vision.workers import Run


def predict(mark: Path, unit: tuple[MediaTask, ...]) -> list[Outcome]:
    """Kill the process at input "always" every time, and at "once" the first time."""
    for task in unit:
        first = task.name == "once" and not mark.exists()
        mark.touch()
        if first or task.name == "always":
            os.kill(os.getpid(), signal.SIGKILL)
    return [Outcome(task.name, "done", task.name) for task in unit]


def make(mark: Path) -> Run[MediaTask]:
    return partial(predict, mark)


@pytest.mark.slow
def test_units_of_a_killed_process_are_tried_again(tmp_path: Path) -> None:
    import ray

    folder = tempfile.mkdtemp(prefix="ray")  # names of sockets are short
    paths = {"env_vars": {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.getcwd()))}}
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, runtime_env=paths)
    try:
        names = ["once", "a", "always", "b", "c"]
        units = [(MediaTask(FoundFile(Path(name)), name, True),) for name in names]
        found = [
            o
            for outcomes in run_on_ray(partial(make, tmp_path / "mark"), units, "local")
            for o in outcomes
        ]
    finally:
        ray.shutdown()
    assert {outcome.input: outcome.status for outcome in found} == {
        **dict.fromkeys(("once", "a", "b", "c"), "done"),
        "always": "failed",
    }
