"""A run as a script, which Lightning can start again for each device."""

from __future__ import annotations

import sys
from pathlib import Path

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


def run(root: str, out: str, devices: int) -> None:
    """Train for two epochs on 8 images per step, distributed over `devices` processes."""
    data = DataOptions(root=root, batch_size=8 // devices, num_workers=0, validation=0.4)
    data.resize = data.crop = 16
    data.flip = data.brightness = data.contrast = data.saturation = 0.0
    trainer = TrainerOptions(
        max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto"
    )
    optimizer = OptimizerOptions("sgd", lr=0.05)
    fit(RunOptions(ModelOptions("tiny"), data, {}, optimizer, trainer, seed=1, out=out))


if __name__ == "__main__":
    tiny_model.register()
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
