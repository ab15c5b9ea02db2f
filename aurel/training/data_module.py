"""Training, validation and test data of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from aurel.facs import AUSet
from aurel.training.seeding import WorkerSeed


@dataclass(frozen=True)
class Splits:
    """The data sets of a run, and what a checkpoint must remember about them.

    Args:
        aus: the AUs of the label columns, the same in all.
        train: with augmentation; None where there is nothing to train.
        validation: chooses the best epoch; None to keep the last.
        test: None where it is not at hand.
        class_weights: (N,) from the training labels, or None.
        train_labels: the labels of the training items, one (T, N) table for each run of frames.
        protocol: primitive values: data set, fold, who is in which part.
    """

    aus: AUSet
    train: Dataset[dict[str, Any]] | None = None
    validation: Dataset[dict[str, Any]] | None = None
    test: Dataset[dict[str, Any]] | None = None
    class_weights: Tensor | None = None
    train_labels: list[Tensor] | None = None
    protocol: dict[str, Any] | None = None


class AUDataModule(LightningDataModule):
    """Loaders over `Splits`, for one process or many.

    Training images are shuffled by seed and epoch alone, so that a resumed run sees them in the
    order of the run that was stopped. Each process scores its own share of validation and test
    images, none of them twice. The trainer must be told ``use_distributed_sampler=False``.

    Args:
        splits: the data.
        batch_size: images a step and a process.
        num_workers: processes that read images.
        seed: of the order of training images.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._epoch = 0

    def check_batch(self, world: int) -> None:
        """Raise ValueError where there is no training batch for each of `world` processes."""
        items = len(cast(Any, _present(self.splits.train, "training"))) // world
        if items < self.batch_size:
            raise ValueError(
                f"batch_size must be at most {items} (the training items of a process), got "
                f"{self.batch_size}"
            )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of shuffled whole batches."""
        data = _present(self.splits.train, "training")
        rank, world = self._place()
        self.check_batch(world)
        sampler: Any = DistributedSampler(data, world, rank, shuffle=True, seed=self.seed)
        sampler.set_epoch(self._epoch)
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=WorkerSeed(self.seed, sampler),
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Return a loader of this process's share of the validation images, if there are any."""
        if self.splits.validation is None:
            return []
        return self._scored(self.splits.validation)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of this process's share of the test images."""
        return self._scored(_present(self.splits.test, "test"))

    def state_dict(self) -> dict[str, Any]:
        """Return which epoch comes next; checkpoints are written when one has ended."""
        assert self.trainer is not None
        return {"epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start with the epoch that comes next."""
        self._epoch = state_dict["epoch"]

    def _scored(self, data: Dataset[dict[str, Any]]) -> DataLoader[dict[str, Any]]:
        rank, world = self._place()
        size = len(cast(Any, data))
        if size < world:
            raise ValueError(f"{size} items cannot be shared out to {world} processes")
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=range(rank, size, world),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),
        )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def _present(data: Dataset[dict[str, Any]] | None, which: str) -> Dataset[dict[str, Any]]:
    if data is None:
        raise ValueError(f"there are no {which} data")
    return data
