"""The trainer of a run, its loaders and its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from aurel.training.checkpoint_io import AtomicCheckpointIO
from aurel.training.data_module import AUDataModule, Splits
from aurel.training.options import RunOptions, TrainerOptions
from aurel.training.plugins import early_stopping, make_callbacks
from aurel.training.step_checkpoint import StepCheckpoint
from aurel.training.sync_norms import SyncNorms
from aurel.training.trainer_arguments import trainer_arguments


def make_trainer(options: TrainerOptions, callbacks: Sequence[Callback], logger: Any) -> Trainer:
    """Return a Lightning trainer that prints nothing and writes checkpoints atomically."""
    try:
        return Trainer(
            **trainer_arguments(options),
            callbacks=list(callbacks),
            logger=logger,
            plugins=[AtomicCheckpointIO(), *([SyncNorms()] if options.sync_batchnorm else [])],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        )
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error


def data_module(options: RunOptions, splits: Splits) -> AUDataModule:
    """Return the loaders of the data, with the batch size and the seed of a run."""
    data = options.data
    return AUDataModule(
        splits,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        seed=options.seed,
        balanced=data.sampler == "balanced",
    )


def checkpointing(folder: Path, monitor: str | None) -> list[Callback]:
    """Return the callbacks that save the last epoch, and that of the highest `monitor` if any."""
    every_epoch: dict[str, Any] = {
        "dirpath": folder,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    last = ModelCheckpoint(filename="last", **every_epoch)
    if monitor is None:
        return [last]
    return [ModelCheckpoint(filename="best", monitor=monitor, mode="max", **every_epoch), last]


def chosen_callbacks(options: RunOptions, folder: Path, monitor: str | None) -> list[Callback]:
    """Return the callbacks that the recipe asks for."""
    chosen = make_callbacks(options.callbacks)
    if options.early_stopping is not None:
        chosen.append(early_stopping(options.early_stopping, monitor))
    if options.checkpoint.every_steps is not None:
        last = folder / "checkpoints" / "last.ckpt"
        chosen.append(StepCheckpoint(last, options.checkpoint.every_steps))
    return chosen
