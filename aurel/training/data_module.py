"""Training, validation and test data of a run, and their loaders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aurel.data.arguments import check_at_least
from aurel.facs import AUSet
from aurel.training.accumulation import SharingLoader
from aurel.training.order import EpochOrder, SeededItems, balanced_weights, label_table


@dataclass(frozen=True)
class Splits:
    """The data sets of a run, and the values about them that a checkpoint stores.

    Args:
        aus: the AUs of the label columns, the same in all parts.
        train: training data, with augmentation; None for a run that only scores.
        validation: data on which the best epoch is chosen; None to keep the last.
        test: test data; None where there are none.
        class_weights: (N,) from the training labels, or None.
        cutpoints: (N, 5) of the intensities of the training labels, see
            `aurel.losses.ordinal_cutpoints`; None where the labels are 1 and 0.
        train_labels: the labels of the training items, one (T, N) table for each run of frames.
        protocol: primitive values: data set, fold, the subjects of each part.
    """

    aus: AUSet
    train: Dataset[dict[str, Any]] | None = None
    validation: Dataset[dict[str, Any]] | None = None
    test: Dataset[dict[str, Any]] | None = None
    class_weights: Tensor | None = None
    cutpoints: Tensor | None = None
    train_labels: list[Tensor] | None = None
    protocol: dict[str, Any] | None = None


class AUDataModule(LightningDataModule):
    """Return loaders of `Splits`, for one process or many.

    The order of the training images depends on seed and epoch only, so that a resumed run has the
    order of the run that was stopped. Each process scores its own share of validation and test
    images, and each image is scored once. The trainer needs ``use_distributed_sampler=False``.

    Args:
        splits: the data.
        batch_size: images per step and process.
        num_workers: processes that read images.
        seed: seed of the order of training images.
        balanced: take items with rare labels more often, see `balanced_weights`.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        check_at_least("num_workers", num_workers, 0)
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.balanced = balanced
        self._epoch = 0
        self._batches_done = 0

    def check_batch(self, world: int) -> None:
        """Raise ValueError unless each of `world` processes has a training batch."""
        items = len(cast(Any, _present(self.splits.train, "training"))) // world
        if items < self.batch_size:
            raise ValueError(
                f"batch_size must be at most {items} (the training items of a process), got "
                f"{self.batch_size}"
            )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of shuffled training images, see `drops_last`."""
        data = _present(self.splits.train, "training")
        rank, world = self._rank_and_world()
        self.check_batch(world)
        data, sampler = self._in_order(data, world, rank)
        sampler.set_epoch(self._epoch)
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        loader: DataLoader[dict[str, Any]] = (
            SharingLoader if accumulate * world > 1 else DataLoader
        )(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drops_last(len(sampler), self.batch_size),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )
        if isinstance(loader, SharingLoader):
            loader.accumulate = accumulate
        return loader

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Return a loader of this process's share of the validation images, or an empty list."""
        if self.splits.validation is None:
            return []
        return self._scoring_loader(self.splits.validation)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of this process's share of the test images."""
        return self._scoring_loader(_present(self.splits.test, "test"))

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the batch in it with which a resumed run continues."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        in_epoch = epochs.processed == epochs.completed
        batches = loop.epoch_loop.batch_progress.current.ready if in_epoch else 0
        return {"epoch": epochs.processed, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start where the checkpoint was written."""
        self._epoch = state_dict["epoch"]
        self._batches_done = state_dict.get("batches", 0)

    def _in_order(
        self, data: Dataset[dict[str, Any]], world: int, rank: int
    ) -> tuple[Dataset[Any], Any]:
        """Return the items with their random numbers, and their sampler."""
        weights = balanced_weights(label_table(data)) if self.balanced else None
        skip = (self._epoch, self._batches_done * self.batch_size)
        order = EpochOrder(data, world, rank, self.seed, weights, skip)
        return SeededItems(data, self.seed, order), order

    def _scoring_loader(self, data: Dataset[dict[str, Any]]) -> DataLoader[dict[str, Any]]:
        rank, world = self._rank_and_world()
        size = len(cast(Any, data))
        if size < world:
            raise ValueError(
                f"the data must have at least {world} items, one for each process, got {size}"
            )
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=range(rank, size, world),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),
        )

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def drops_last(items: int, batch_size: int) -> bool:
    """Return whether the last, incomplete batch of an epoch is dropped.

    It is dropped where it has at most a tenth of the items, or a single one, of which batch norms
    cannot learn.
    """
    rest = items % batch_size
    return rest == 1 or rest <= items / 10


def _present(data: Dataset[dict[str, Any]] | None, which: str) -> Dataset[dict[str, Any]]:
    if data is None:
        raise ValueError(f"splits must have {which} data, got none")
    return data
