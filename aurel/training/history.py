"""A row of metrics for each epoch, in memory and in a CSV file that a resumed run continues."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aurel.files import atomic_path


def epoch_metrics(trainer: Trainer) -> dict[str, Tensor]:
    """Return the metrics of this epoch; those of validation only where it was run."""
    every = trainer.check_val_every_n_epoch or 1
    validated = (trainer.current_epoch + 1) % every == 0
    metrics = trainer.callback_metrics
    return {key: metrics[key] for key in metrics if validated or not key.startswith("val/")}


class History(Callback):
    """Collect the logged metrics after each epoch.

    Args:
        path: CSV file, rewritten after each epoch; rows of a run that is resumed are kept. None
            keeps the rows in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of this epoch, and write the file."""
        row = {name: float(value) for name, value in epoch_metrics(trainer).items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **row})
        if self.path is not None and trainer.is_global_zero:
            self._write(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, which checkpoints store."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = state_dict["rows"]

    def _write(self, path: Path) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
