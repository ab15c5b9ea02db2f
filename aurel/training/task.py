"""The training step, the scores and the optimizer, as a Lightning module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from aurel.losses import ordinal_intensity
from aurel.metrics import AUIntensityScores, AUScores
from aurel.models.base import AUModel
from aurel.models.checkpoint import describe
from aurel.output import AUOutput, presence_logits
from aurel.training.accumulation import shared_by_processes
from aurel.training.groups import in_group
from aurel.training.objective import Objective
from aurel.training.options import OptimizerOptions
from aurel.training.sam import at_perturbed_weights
from aurel.training.schedules import schedule

Scores = dict[str, dict[str, float]]


class Task(LightningModule):
    """Train and score a model; subclasses define the scores.

    `aurel.models.checkpoint.load_model` reads its checkpoints without further files: they hold the
    name of the model, its options and AUs, and as `metadata` the data that it was trained on.

    Args:
        model: made by `create_model`.
        objective: the loss; may be None where the task is only scored.
        optimizer: the optimizer's options.
        metadata: primitive values that every checkpoint stores, such as the fold.

    Attributes:
        monitor: name of the logged validation score; the epoch with the highest is the best.
        scores: the scores of the last validation or test, by row and name.
        visibility_scores: the same over the visible and over the hidden entries, where the data
            have a mask of them.
        tested: the protocol of the data that were scored.
    """

    monitor: str

    def __init__(
        self,
        model: AUModel,
        objective: Objective | None,
        optimizer: OptimizerOptions | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optimizer_options = optimizer or OptimizerOptions()
        self.metadata = metadata or {}
        self.scores: Scores = {}
        self.visibility_scores: dict[str, Scores] = {}
        self.tested: dict[str, Any] = {}
        self._perturbed = False

    def forward(self, images: Tensor) -> AUOutput:
        """Return the model's output for images (B, 3, H, W), or clips (B, T, 3, H, W)."""
        return self.model(images)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        assert self.objective is not None, "a task without an objective cannot be trained"
        batch = shared_by_processes(batch)
        total, terms = self.objective(self(batch["image"]), batch)
        logged = {"train/loss": total, **{f"train/{name}": value for name, value in terms.items()}}
        size = len(batch["image"])
        if not self._perturbed:
            self.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the metrics with a batch."""
        self._update_metrics(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the metrics with a batch."""
        self._update_metrics(batch)

    def on_validation_epoch_end(self) -> None:
        """Set the scores of the epoch and log them; the best checkpoint is chosen by `monitor`."""
        self._score()
        self.log_dict(self._logged())

    def on_test_epoch_end(self) -> None:
        """Set the scores of the test data."""
        self._score()

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, which changes the rate after every step."""
        options = self.optimizer_options
        total = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs or 1
        if options.sam is not None and not options.sam > 0:
            raise ValueError(f"optimizer.sam must be above 0, got {options.sam}")
        batches = self.trainer.accumulate_grad_batches
        if options.sam is not None and batches > 1:
            raise ValueError(f"accumulate_grad_batches must be 1 with optimizer.sam, got {batches}")
        warmup = options.warmup_steps or round(options.warmup_epochs * total / epochs)
        optimizer = make_optimizer(self.model, options)
        milestones = [round(epoch * total / epochs) for epoch in options.milestones]
        factor = schedule(options.schedule, total, warmup, milestones)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, factor), "interval": "step"}]

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Any = None,
    ) -> None:
        """Update the weights; with `sam`, by the gradients at the perturbed weights."""
        closure, radius = optimizer_closure, self.optimizer_options.sam
        if radius is not None:
            optimizer_closure()

            def closure() -> Any:
                self._perturbed = True
                try:
                    return at_perturbed_weights(self.model, radius, optimizer_closure)
                finally:
                    self._perturbed = False

        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the model and of the data that it was trained on."""
        checkpoint["aurel"] = describe(self.model)
        checkpoint["metadata"] = self.metadata

    def _update_metrics(self, batch: dict[str, Any]) -> None:
        """Update the metrics with a batch."""
        raise NotImplementedError

    def _score(self) -> None:
        """Set `scores` from the metrics, and reset these."""
        raise NotImplementedError

    def _logged(self) -> dict[str, float]:
        """Return the scores to log, by their names in the logs."""
        raise NotImplementedError


class AUTask(Task):
    """Train and score a model of AUs on batches of the data sets in `aurel.data`.

    Arguments and checkpoints are those of `Task`. `scores` is the per-AU table of `AUScores`.

    Attributes:
        tuned_scores: the same at the thresholds of `score_more`; empty without.
        group_scores: the same for each group of people, see `aurel.training.groups`.
    """

    monitor = "val/f1"

    def __init__(
        self,
        model: AUModel,
        objective: Objective | None,
        optimizer: OptimizerOptions | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, objective, optimizer, metadata)
        subsets = ("all", "visible", "hidden")
        self.metrics = nn.ModuleDict({name: AUScores(model.aus) for name in subsets})
        self.tuned_scores: Scores = {}
        self.group_scores: list[Scores] = []
        self._cutpoints: Tensor | None = None

    def score_more(self, thresholds: Mapping[str, float] | None, groups: int = 0) -> None:
        """Score at further thresholds, and for groups of people.

        Args:
            thresholds: of each AU, 0.5 where it is NaN; None for no such score.
            groups: number of groups, the columns of ``groups`` in a batch.
        """
        aus = self.model.aus
        if thresholds is not None:
            values = torch.tensor([thresholds[name] for name in aus.names], dtype=torch.float64)
            self.metrics["tuned"] = AUScores(aus, values.nan_to_num(0.5))
        for index in range(groups):
            self.metrics[f"group{index}"] = AUScores(aus)

    def score_intensities(self, cutpoints: Tensor) -> None:
        """Score intensities, too; labels are then 0 to 5, and above 0 an AU is present.

        Args:
            cutpoints: (N, 5), see `aurel.losses.ordinal_cutpoints`.
        """
        self._cutpoints = cutpoints
        self.monitor = "val/icc"
        self.intensities = AUIntensityScores(self.model.aus)

    def _update_metrics(self, batch: dict[str, Any]) -> None:
        labels = batch["labels"]
        output = self(batch["image"])
        probs = output.probs
        if self._cutpoints is not None:
            logits = presence_logits(output)
            self.intensities.update(ordinal_intensity(logits, self._cutpoints.to(logits)), labels)
            labels = labels.clamp(max=1)
        self._metric("all").update(probs, labels)
        if "visible" in batch:
            visible = batch["visible"]
            self._metric("visible").update(probs, labels.masked_fill(~visible, -1))
            self._metric("hidden").update(probs, labels.masked_fill(visible, -1))
        if "tuned" in self.metrics:
            self._metric("tuned").update(probs, labels)
        if "groups" in batch:
            for index in range(batch["groups"].shape[1]):
                self._metric(f"group{index}").update(
                    probs, in_group(labels, batch["groups"], index)
                )

    def _score(self) -> None:
        self.scores = self._metric("all").compute()
        if self._cutpoints is not None:
            for name, row in self.intensities.compute().items():
                self.scores[name] = {**row, **self.scores[name]}
            self.intensities.reset()
        self.visibility_scores = {
            name: self._metric(name).compute()
            for name in ("visible", "hidden")
            if self._metric(name).update_called
        }
        if "tuned" in self.metrics:
            self.tuned_scores = self._metric("tuned").compute()
        groups = [name for name in self.metrics if name.startswith("group")]
        self.group_scores = [self._metric(name).compute() for name in groups]
        for metric in self.metrics.values():
            cast(AUScores, metric).reset()

    def _metric(self, name: str) -> AUScores:
        return cast(AUScores, self.metrics[name])

    def _logged(self) -> dict[str, float]:
        mean = self.scores["mean"]
        names = ("f1", "accuracy", "auc", "icc", "pcc", "mse", "mae")
        return {f"val/{name}": mean[name] for name in names if name in mean}


def make_optimizer(model: AUModel, options: OptimizerOptions) -> torch.optim.Optimizer:
    """Return the optimizer of `options`, over all parameters of `model`.

    Those of a relation head have ten times the learning rate and no weight decay.
    """
    lr, decay = options.lr, options.weight_decay
    head = model.relation_head
    of_head = set() if head is None else set(head.parameters())
    parameters: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p not in of_head]}
    ]
    if head is not None:
        parameters += head.inference.parameter_groups(lr)
    if options.name == "sgd":
        momentum = options.momentum
        nesterov = options.nesterov and momentum > 0
        return torch.optim.SGD(parameters, lr, momentum, weight_decay=decay, nesterov=nesterov)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr, options.betas, weight_decay=decay)
