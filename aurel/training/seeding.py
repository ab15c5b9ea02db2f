"""Random numbers that depend on seed, epoch and process only.

A resumed run then gives the results of a run that was not stopped, with or without worker
processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DistributedSampler


class EpochSeed(Callback):
    """Seed torch at the start of every epoch.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch for this epoch and process."""
        torch.manual_seed(mixed(self.seed, trainer.current_epoch, trainer.global_rank))


@dataclass
class WorkerSeed:
    """Seed torch in the processes that read training images, which start again every epoch.

    Args:
        seed: seed of the run.
        sampler: sampler with the epoch and the rank of the training process.
    """

    seed: int
    sampler: DistributedSampler[object]

    def __call__(self, worker: int) -> None:
        torch.manual_seed(mixed(self.seed, self.sampler.epoch, self.sampler.rank, worker))


def mixed(*numbers: int) -> int:
    """Return a seed that depends on all of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
