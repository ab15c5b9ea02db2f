"""A run stopped in the middle of an epoch and resumed gives the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_runs import options, same, weights
from lightning.pytorch import Callback, Trainer

from aurel.training.run import checkpoint_file, fit, run_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


class NoisyGradients(Callback):
    """Stand for dropout: random numbers of the training process."""

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        for parameter in pl_module.parameters():
            assert parameter.grad is not None
            parameter.grad += 0.01 * torch.rand_like(parameter)


class StopAt(Callback):
    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (13, {}),
        (13, {"data__num_workers": 2}),
        (14, {"optimizer__ema_decay": 0.9, "data__sampler": "balanced"}),
        (21, {"trainer__accumulate_grad_batches": 2}),
        (8, {}),
        (16, {"data__validation": 0.0}),
        (3, {}),
    ],
)
def test_a_run_stopped_at_a_step_ends_with_the_same_bits(
    stop: int, changes: dict[str, Any], stripes: Path, tmp_path: Path
) -> None:
    changes = {"trainer__max_epochs": 3, **changes}
    whole = options(stripes, tmp_path / "whole", **changes)
    fit(whole, callbacks=[NoisyGradients()])
    stopped = options(stripes, tmp_path / "stopped", **changes)
    stopped.checkpoint.every_steps = 2
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, callbacks=[NoisyGradients(), StopAt(stop)])
    last = checkpoint_file(run_folder(stopped), "last")
    position = torch.load(last, weights_only=True)["AUDataModule"]
    epoch_length = 10 if "data__validation" in changes else 8
    done = position["epoch"] * epoch_length + position["batches"]
    assert stop - 4 <= done <= stop
    torch.manual_seed(99)
    fit(stopped, last, callbacks=[NoisyGradients()])
    for name in ("last",) if "data__validation" in changes else ("last", "best"):
        files = [checkpoint_file(run_folder(run), name) for run in (whole, stopped)]
        assert same(*map(weights, files)), name
    histories = [(run_folder(run) / "history.csv").read_text() for run in (whole, stopped)]
    assert histories[0] == histories[1]


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from helpers import tiny_model
from helpers.tiny_runs import options
from lightning.pytorch import Callback
from aurel.training.run import fit
tiny_model.register()

class Kill(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

run = options(Path(sys.argv[1]), Path(sys.argv[2]), trainer__max_epochs=2)
run.checkpoint.every_steps = 3
fit(run, callbacks=[Kill()])
"""


@pytest.mark.slow
def test_a_killed_run_continues_from_its_last_step(stripes: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).resolve().parents[1])
    out = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, str(stripes), str(out), tests]
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    killed = options(stripes, out, trainer__max_epochs=2)
    last = checkpoint_file(out, "last")
    assert torch.load(last, weights_only=True)["global_step"] == 9
    fit(killed, last)
    whole = options(stripes, tmp_path / "whole", trainer__max_epochs=2)
    fit(whole)
    assert same(weights(last), weights(checkpoint_file(run_folder(whole), "last")))


def test_augmentation_does_not_depend_on_the_number_of_workers(
    stripes: Path, tmp_path: Path
) -> None:
    runs = [
        options(stripes, tmp_path / str(n), data__num_workers=n, trainer__max_epochs=1)
        for n in (0, 2)
    ]
    for run in runs:
        fit(run)
    assert same(*(weights(checkpoint_file(run_folder(run), "last")) for run in runs))


def test_steps_below_one_are_refused(stripes: Path, tmp_path: Path) -> None:
    run = options(stripes, tmp_path / "run")
    run.checkpoint.every_steps = 0
    with pytest.raises(ValueError, match="checkpoint.every_steps must be at least 1, got 0"):
        fit(run)
