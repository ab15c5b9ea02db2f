"""The training step and the score of an expression encoder."""

from __future__ import annotations

from typing import Any

from torchmetrics import MeanMetric

from aurel.losses import triplets_right
from aurel.models.base import AUModel
from aurel.training.objective import Objective
from aurel.training.options import OptimizerOptions
from aurel.training.task import Task


class TripletTask(Task):
    """Train and score an encoder on batches of `aurel.data.triplets`.

    Arguments and checkpoints are those of `Task`. `scores` has one number, the mean's ``accuracy``:
    the share of triplets in which the two faces of similar expression are the closest pair.
    """

    monitor = "val/triplets"

    def __init__(
        self,
        model: AUModel,
        objective: Objective | None,
        optimizer: OptimizerOptions | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, objective, optimizer, metadata)
        self.accuracy = MeanMetric()

    def _update_metrics(self, batch: dict[str, Any]) -> None:
        self.accuracy.update(triplets_right(self(batch["image"])).float())

    def _score(self) -> None:
        self.scores = {"mean": {"accuracy": float(self.accuracy.compute())}}
        self.accuracy.reset()

    def _logged(self) -> dict[str, float]:
        return {self.monitor: self.scores["mean"]["accuracy"]}
