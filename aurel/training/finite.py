"""A run stops at a loss that is not finite, and keeps the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aurel.files import save_torch
from aurel.training.order import source_of


class FiniteLoss(Callback):
    """Stop at a loss that is NaN or infinite, before it changes the weights.

    The batch is written to ``nan_batch.pt``, which `torch.load` reads with ``weights_only=True``: a
    dict of the tensors of the batch, ``sources`` (the files of the items, where the data list
    them), ``loss``, ``epoch``, ``batch`` and ``rank``. The checkpoints stay as they are.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batch: dict[str, Any] = {}
        self._number = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch until its loss is known."""
        self._batch, self._number = batch, batch_idx

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Raise ValueError where the loss is not finite."""
        if torch.isfinite(loss).all():
            return
        rank = trainer.global_rank
        file = self.folder / ("nan_batch.pt" if rank == 0 else f"nan_batch_{rank}.pt")
        kept = {key: _plain(value) for key, value in self._batch.items()}
        kept["sources"] = self._sources(trainer)
        place = {"epoch": trainer.current_epoch, "batch": self._number, "rank": rank}
        save_torch({**kept, **place, "loss": loss.detach().cpu()}, file)
        images = self._batch.get("image")
        bad = isinstance(images, Tensor) and not torch.isfinite(images).all()
        cause = "; its images hold NaN or infinite values" if bad else ""
        raise ValueError(
            f"the loss must be finite, got {loss.item()} in batch {self._number + 1} of epoch "
            f"{trainer.current_epoch + 1}{cause}; the batch is kept in {file}, and the last "
            "checkpoint is that before; a lower optimizer.lr or trainer.gradient_clip_val may help"
        )

    def _sources(self, trainer: Trainer) -> list[str]:
        """Return the files of the items of the batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        items = self._batch.get("item")
        if items is None or data is None:
            return []
        return [source_of(data.splits.train, int(item)) for item in items]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, list | tuple) else value
