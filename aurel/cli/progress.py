"""A progress bar for a run, and one line of scores for each epoch."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aurel.training.history import epoch_metrics

try:
    from rich import progress as bars
    from rich.console import Console
except ImportError as error:
    raise ImportError("progress bars need rich: pip install 'aurel-au[viz]'") from error


class TrainingProgress(Callback):
    """Show the progress of a run if stdout is a terminal, and print a line for each epoch.

    Args:
        console: receives the output.
        title: text before the bar.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self._bar: bars.Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.max_epochs or 1
        batches = int(trainer.num_training_batches)
        if trainer.is_global_zero:
            steps = -(-batches // trainer.accumulate_grad_batches)
            total = int(trainer.estimated_stepping_batches)
            self.console.print(f"steps       {steps} an epoch, {total} in all", highlight=False)
        self._start(trainer, epochs * batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        self._advance(done)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.console.print(epoch_line(trainer), highlight=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, int(trainer.num_test_batches[0]))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(batch_idx + 1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _start(self, trainer: Trainer, total: int) -> None:
        if not trainer.is_global_zero:
            return
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
        )
        hidden = not self.console.is_terminal
        self._bar = bars.Progress(*columns, console=self.console, transient=True, disable=hidden)
        self._bar.add_task(self.title, total=total)
        self._bar.start()

    def _advance(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def epoch_line(trainer: Trainer) -> str:
    """Return the scores of an epoch, such as "epoch 3/12  loss 0.412  F1 0.603  AUC 0.811"."""
    metrics = epoch_metrics(trainer)
    parts = [f"epoch {trainer.current_epoch + 1:>2}/{trainer.max_epochs}"]
    shown = {
        "train/loss": "loss",
        "val/f1": "F1",
        "val/auc": "AUC",
        "val/icc": "ICC",
        "val/triplets": "triplets",
    }
    for key, name in shown.items():
        if key in metrics and not math.isnan(float(metrics[key])):
            parts.append(f"{name} {float(metrics[key]):.3f}")
    return "  ".join(parts)
