"""Options of runs of a very small model, and their results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aurel.models.checkpoint import read_checkpoint
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)


def options(root: Path, out: Path, **changes: Any) -> RunOptions:
    """Return options of a run on the stripes; ``section__name=value`` changes one."""
    data = DataOptions(
        root=str(root), batch_size=4, num_workers=0, resize=18, crop=16, validation=0.2
    )
    optimizer = OptimizerOptions(lr=0.02, weight_decay=0.0, warmup_epochs=0.5)
    trainer = TrainerOptions(max_epochs=4, accelerator="cpu", devices=1)
    base = RunOptions(
        ModelOptions("tiny"), data, optimizer=optimizer, trainer=trainer, seed=3, out=str(out)
    )
    for key, value in changes.items():
        section, _, name = key.partition("__")
        part = replace(getattr(base, section), **{name: value}) if name else value
        base = replace(base, **{section: part})
    return base


def weights(file: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint."""
    return read_checkpoint(file).state_dict


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether all tensors are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
