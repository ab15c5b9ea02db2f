"""Random numbers that depend on seed, epoch, batch and process only.

A resumed run then gives the results of a run that was not stopped, with or without worker
processes, wherever it was stopped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed torch before every training batch.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch for this batch and process."""
        torch.manual_seed(mixed(self.seed, trainer.current_epoch, trainer.global_rank, batch_idx))


def mixed(*numbers: int) -> int:
    """Return a seed that depends on all of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
