"""One row an epoch, in memory and in a CSV file that survives a resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class History(Callback):
    """Collect what was logged, once an epoch.

    Args:
        path: CSV file, rewritten after each epoch; rows of a run that is resumed are kept. None
            keeps the rows in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        row = {name: float(value) for name, value in metrics.items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **row})
        if self.path is not None and trainer.is_global_zero:
            self._write(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def _write(self, path: Path) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        partial = path.with_name(path.name + ".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(path)
