"""A checkpoint every few steps, from which a run continues in the middle of an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class StepCheckpoint(Checkpoint):
    """Write the last checkpoint every few optimizer steps, besides that at the end of an epoch.

    Args:
        file: the file, that of the end of an epoch.
        every: number of optimizer steps.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, file: Path, every: int) -> None:
        if every < 1:
            raise ValueError(f"checkpoint.every_steps must be at least 1, got {every}")
        self.file = file
        self.every = every
        self._saved = 0
        self._sums: dict[str, Any] = {}
        self._of_epoch: dict[str, Any] = {}

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save after the step, unless the epoch ends here, where it is saved anyway."""
        self._add_sums(trainer)
        step = trainer.global_step
        if step % self.every or step == self._saved or trainer.is_last_batch:
            return
        self._saved = step
        self._of_epoch = {
            name: (result.value, result.cumulated_batch_size)
            for name, result in trainer.fit_loop.epoch_loop._results.items()
            if result.meta.on_epoch
        }
        trainer.save_checkpoint(self.file)
        self._of_epoch = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums from which the means of the epoch so far are computed."""
        return {
            "sums": {name: tuple(t.clone() for t in sums) for name, sums in self._of_epoch.items()}
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the means of the epoch."""
        self._sums = state_dict["sums"]

    def _add_sums(self, trainer: Trainer) -> None:
        """Add the sums of the stopped run to those of the first batch of this one."""
        results = trainer.fit_loop.epoch_loop._results
        for name, (value, size) in self._sums.items():
            results[name].value += value.to(results[name].value.device)
            results[name].cumulated_batch_size += size.to(results[name].value.device)
        self._sums = {}
