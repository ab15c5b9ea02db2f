"""A run as a script, which Lightning can start again for each device."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from aurel.cli.errors import guarded
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)
from aurel.training.run import fit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import tiny_model


class KillOne(Callback):
    """Kill, or stop, one of the processes after a few steps."""

    def __init__(self, rank: int, number: int) -> None:
        self.rank, self.number = rank, number

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3 and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


def run(root: str, out: str, devices: int, select_on: Any = "validation") -> None:
    """Train for two epochs on 8 images per step, distributed over `devices` processes."""
    fit(options(root, out, devices, select_on))


def options(root: str, out: str, devices: int, select_on: Any = "validation") -> RunOptions:
    data = DataOptions(root=root, batch_size=8 // devices, num_workers=0, validation=0.4)
    data.select_on = select_on
    data.resize = data.crop = 16
    data.flip = data.brightness = data.contrast = data.saturation = 0.0
    trainer = TrainerOptions(
        max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto"
    )
    optimizer = OptimizerOptions("sgd", lr=0.05)
    return RunOptions(ModelOptions("tiny"), data, {}, optimizer, trainer, seed=1, out=out)


def run_with_a_loss(root: str, out: str, rank: int, number: int) -> int:
    """Train with two processes, of which one gets a signal; return the exit code of the other."""
    chosen = options(root, out, 2)
    chosen.trainer.timeout = 15.0
    fit(chosen, callbacks=[KillOne(rank, number)])
    return 0


if __name__ == "__main__":
    tiny_model.register()
    root, out, devices, *more = sys.argv[1:]
    if len(more) == 2:
        print(os.getpid(), file=sys.stderr, flush=True)
        rank, number = int(more[0]), signal.Signals[more[1]]
        raise SystemExit(guarded(lambda: run_with_a_loss(root, out, rank, number)))
    run(root, out, int(devices), *more)
