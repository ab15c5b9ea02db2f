"""The training step and the score of an expression encoder."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchmetrics import MeanMetric

from aurel.losses import triplets_right
from aurel.training.objective import Objective
from aurel.training.options import OptimizerOptions
from aurel.training.task import AUTask


class TripletTask(AUTask):
    """Train and score an encoder on batches of `aurel.data.triplets`.

    Arguments and checkpoints are those of `AUTask`. The one score is the share of triplets whose
    closest pair are the two that are alike; in `scores` it is the mean's ``accuracy``, and nothing
    else is a number.
    """

    monitor = "val/triplets"

    def __init__(
        self,
        model: nn.Module,
        objective: Objective | None,
        optimizer: OptimizerOptions | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, objective, optimizer, metadata)
        self.right = MeanMetric()

    def on_validation_epoch_end(self) -> None:
        """Score the epoch."""
        self._score()
        self.log(self.monitor, self.scores["mean"]["accuracy"])

    def _count(self, batch: dict[str, Any]) -> None:
        self.right.update(triplets_right(self(batch["image"])).float())

    def _score(self) -> None:
        nothing = float("nan")
        accuracy = float(self.right.compute())
        self.scores = {"mean": {"f1": nothing, "accuracy": accuracy, "auc": nothing}}
        self.right.reset()
