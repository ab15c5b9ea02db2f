"""Thresholds chosen on the validation people of a run, and stored in its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from aurel.files import save_torch
from aurel.metrics import AUThresholds
from aurel.models.base import AUModel
from aurel.models.checkpoint import SAFETENSORS, load_model, load_weights_only, read_checkpoint
from aurel.training.data_module import Splits
from aurel.training.options import RunOptions, TrainerOptions
from aurel.training.run import load_splits
from aurel.training.task import AUTask
from aurel.training.trainer import data_module, make_trainer


class _ThresholdTask(AUTask):
    def __init__(self, model: AUModel) -> None:
        super().__init__(model, objective=None)
        self.tuner = AUThresholds(model.aus)
        self.thresholds: list[float] = []

    def _update_metrics(self, batch: dict[str, Any]) -> None:
        self.tuner.update(self(batch["image"]).probs, batch["labels"].clamp(max=1))

    def _score(self) -> None:
        self.thresholds = self.tuner.compute().tolist()
        self.tuner.reset()

    def _logged(self) -> dict[str, float]:
        return {}


def tune(
    options: RunOptions,
    checkpoint: Path,
    callbacks: Sequence[Callback] = (),
    splits: Splits | None = None,
) -> dict[str, float]:
    """Choose the threshold of each AU on the validation people, and store them in the checkpoint.

    The threshold of an AU is the one at which its F1 is highest, see
    `aurel.metrics.best_f1_thresholds`. They become the checkpoint's metadata ``thresholds``; its
    other content is unchanged. One process does this on one device.

    Args:
        options: options of the run that wrote the checkpoint.
        checkpoint: a training checkpoint.
        callbacks: callbacks, such as one that prints the progress.
        splits: the data of the run, where they are loaded already.

    Returns:
        The threshold of each AU; NaN for an AU that is never present among these people.

    Raises:
        FileNotFoundError: data or the checkpoint are missing.
        ValueError: the run has no validation people, chose its epoch on the test part, or has other
            validation people than the checkpoint; or the file is no training checkpoint.
    """
    if checkpoint.suffix == SAFETENSORS:
        raise ValueError(f"checkpoint must be a training checkpoint to tune, got {checkpoint}")
    content = read_checkpoint(checkpoint)
    splits = splits or load_splits(options)
    check_tunable(splits)
    _check_people(content.metadata, splits.protocol or {}, checkpoint)
    task = _ThresholdTask(load_model(checkpoint))
    trainer = make_trainer(_one_device(options.trainer), callbacks, logger=False)
    trainer.validate(task, datamodule=data_module(options, splits), verbose=False)
    thresholds = dict(zip(splits.aus.names, task.thresholds, strict=True))
    whole = load_weights_only(checkpoint)
    whole["metadata"] = {**whole["metadata"], "thresholds": thresholds}
    save_torch(whole, checkpoint)
    return thresholds


def check_tunable(splits: Splits) -> None:
    """Raise ValueError unless the data have validation people that are not those of the test."""
    protocol = splits.protocol or {}
    if splits.validation is None:
        raise ValueError(
            "thresholds must be tuned on validation people, got data without: the protocol trains "
            "on all of them"
        )
    if splits.validation is splits.test or protocol.get("select_on") == "test":
        raise ValueError(
            "thresholds must be tuned on validation people, got the test part (data.select_on: "
            "test)"
        )


def _one_device(options: TrainerOptions) -> TrainerOptions:
    devices = options.devices[:1] if isinstance(options.devices, list) else 1
    return replace(options, devices=devices, num_nodes=1, strategy="auto")


def _check_people(trained: dict[str, Any], here: dict[str, Any], checkpoint: Path) -> None:
    for key in ("dataset", "fold", "validation_subjects", "train_subjects"):
        if trained.get(key) != here.get(key):
            raise ValueError(
                f"the data must be those of the run that wrote {checkpoint} to tune its "
                f"thresholds, got another {key}"
            )
