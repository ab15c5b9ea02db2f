r"""F1, accuracy and AUC per AU, streamed over a whole data set and summed over processes.

The protocol of the field: a prediction is positive where p >= threshold (0.5, inclusive); true and
false positives and negatives are counted per AU over the *whole* test fold; then

.. math:: P = \frac{TP}{TP + FP}, \quad R = \frac{TP}{TP + FN}, \quad F_1 = \frac{2 P R}{P + R}

with 0 / 0 = 0, so an AU that is never detected scores 0, present or not, and counts in the mean.
`AUScores` shows the number of positives beside it, since a 0 for want of positives says nothing.

Labels are 1 present, 0 absent, -1 unknown. Unknown entries count nowhere, which is also how to
score a subset: set the labels outside it to -1. An AU without any known label scores NaN and is
left out of the mean, as is the AUC of an AU that is always or never present. A NaN prediction is
not a detection, and makes the AUC of its AU NaN. Scores are float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aurel.facs import AUSet, AUSpec, known_labels

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ImportError as error:
    raise ImportError("aurel.metrics needs torchmetrics: pip install 'aurel-au[train]'") from error

__all__ = ["AUAUC", "AUAccuracy", "AUF1", "AUScores"]

Average = Literal["mean", "none"]
Threshold = float | Sequence[float] | Tensor


def f1_from_counts(tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
    """Return the F1 of each AU; NaN where nothing was counted. Counts are float64."""
    tiny = 1e-20
    precision = tp / (tp + fp + tiny)
    recall = tp / (tp + fn + tiny)
    f1 = 2 * precision * recall / (precision + recall + tiny)
    return f1.masked_fill(tp + fp + tn + fn == 0, torch.nan)


def accuracy_from_counts(tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
    """Return the share of right predictions of each AU; NaN where nothing was counted."""
    return (tp + tn) / (tp + fp + tn + fn)


def roc_auc(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Return the exact area under the ROC curve.

    .. math:: \mathrm{AUC} = P(s^+ > s^-) + \tfrac{1}{2} P(s^+ = s^-)

    over all pairs of a present and an absent sample, from ranks (ties share their mean rank).

    Args:
        scores: :math:`(M,)`.
        labels: :math:`(M,)`, 1 present, 0 absent.

    Returns:
        0-d float64; NaN where all labels are equal or a score is NaN.
    """
    present = (labels == 1).double()
    positives = present.sum()
    negatives = (1 - present).sum()
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    mean_rank = counts.cumsum(0) - (counts.double() - 1) / 2
    rank_sum = (mean_rank[inverse] * present).sum()
    area = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    return area.masked_fill(scores.isnan().any(), torch.nan)


class _AUMetric(Metric):
    """What the metrics of this file share: the AU set, the average, checked flat input."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, aus: AUSpec, average: Average = "mean", **options: Any) -> None:
        super().__init__(**options)
        if average not in ("mean", "none"):
            raise ValueError(f"average must be 'mean' or 'none', got {average!r}")
        self.aus = AUSet.of(aus)
        self.average = average

    def _flatten(self, probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and labels, 1, 0 or -1, each (M, N)."""
        if probs.shape != labels.shape or probs.shape[-1] != len(self.aus):
            raise ValueError(
                f"probs and labels must both be (..., {len(self.aus)}), one column for each AU of "
                f"{self.aus.name}, got {tuple(probs.shape)} and {tuple(labels.shape)}"
            )
        probs, labels = (x.detach().reshape(-1, len(self.aus)) for x in (probs, labels))
        return probs, torch.where(known_labels(labels), labels, -1)

    def _averaged(self, scores: Tensor) -> Tensor:
        return scores.nanmean() if self.average == "mean" else scores


class _AUCounts(_AUMetric):
    """Counts of true and false positives and negatives per AU."""

    tp: Tensor
    fp: Tensor
    tn: Tensor
    fn: Tensor

    def __init__(
        self,
        aus: AUSpec,
        threshold: Threshold = 0.5,
        average: Average = "mean",
        **options: Any,
    ) -> None:
        super().__init__(aus, average, **options)
        self.threshold = torch.as_tensor(threshold, dtype=torch.float64)
        if self.threshold.dim() > 1 or self.threshold.numel() not in (1, len(self.aus)):
            raise ValueError(
                f"threshold must be one number or one an AU ({len(self.aus)}), got shape "
                f"{tuple(self.threshold.shape)}"
            )
        for state in ("tp", "fp", "tn", "fn"):
            zeros = torch.zeros(len(self.aus), dtype=torch.long)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            probs: :math:`(..., N)` probabilities.
            labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        """
        self._count(*self._flatten(probs, labels))

    def _count(self, probs: Tensor, labels: Tensor) -> None:
        # In the dtype of the predictions: a float32 0.7 is below a float64 0.7.
        detected = probs >= self.threshold.to(probs.dtype).to(probs.device)
        present, absent = labels == 1, labels == 0
        self.tp += (detected & present).sum(0)
        self.fp += (detected & absent).sum(0)
        self.tn += (~detected & absent).sum(0)
        self.fn += (~detected & present).sum(0)

    def _counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tp, fp, tn, fn = (counts.cpu().double() for counts in (self.tp, self.fp, self.tn, self.fn))
        return tp, fp, tn, fn


class AUF1(_AUCounts):
    """F1 of each AU, or their mean; see the module's text for the protocol.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        threshold: one number or one an AU; p >= threshold is a detection.
        average: "mean" over the AUs, or "none" for all of them, :math:`(N,)`.
        options: those of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the score, 0-d or (N,)."""
        return self._averaged(f1_from_counts(*self._counts()))


class AUAccuracy(_AUCounts):
    """Share of right predictions of each AU, or its mean; arguments as `AUF1`.

    Rare AUs make it high for a model that detects nothing: never read it without F1.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the score, 0-d or (N,)."""
        return self._averaged(accuracy_from_counts(*self._counts()))


class AUAUC(_AUMetric):
    """Area under the ROC curve of each AU, or its mean.

    Exact: it keeps every score (8 bytes a sample and AU), 10 MB for a test fold of BP4D.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        average: "mean" over the AUs where it is defined, or "none" for all, :math:`(N,)`.
        options: those of `torchmetrics.Metric`.
    """

    higher_is_better = True
    pairs: list[Tensor] | Tensor

    def __init__(self, aus: AUSpec, average: Average = "mean", **options: Any) -> None:
        super().__init__(aus, average, **options)
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Keep a batch; arguments as `AUF1.update`."""
        _keep_pairs(self.pairs, *self._flatten(probs, labels))

    def compute(self) -> Tensor:
        """Return the score, 0-d or (N,)."""
        return self._averaged(_auc_of_pairs(self.pairs, len(self.aus)))


class AUScores(_AUCounts):
    """All scores of all AUs in one table.

    `compute` returns a dict from AU name to `f1`, `accuracy`, `auc`, and the counts `positives` and
    `known`; its entry "mean" holds the mean `f1`, `accuracy` and `auc`.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        threshold: one number or one an AU; p >= threshold is a detection.
        options: those of `torchmetrics.Metric`.
    """

    pairs: list[Tensor] | Tensor

    def __init__(self, aus: AUSpec, threshold: Threshold = 0.5, **options: Any) -> None:
        super().__init__(aus, threshold, **options)
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Count and keep a batch; arguments as `AUF1.update`."""
        flat = self._flatten(probs, labels)
        self._count(*flat)
        _keep_pairs(self.pairs, *flat)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the table as plain numbers."""
        tp, fp, tn, fn = self._counts()
        scores = {
            "f1": f1_from_counts(tp, fp, tn, fn),
            "accuracy": accuracy_from_counts(tp, fp, tn, fn),
            "auc": _auc_of_pairs(self.pairs, len(self.aus)),
        }
        counts = {"positives": (tp + fn).long(), "known": (tp + fp + tn + fn).long()}
        columns = {key: values.tolist() for key, values in {**scores, **counts}.items()}
        table = {
            name: {key: values[index] for key, values in columns.items()}
            for index, name in enumerate(self.aus.names)
        }
        table["mean"] = {key: values.nanmean().item() for key, values in scores.items()}
        return table


def _keep_pairs(pairs: list[Tensor] | Tensor, probs: Tensor, labels: Tensor) -> None:
    # One flat float32 vector of (score, label): a process that saw no batch then adds an empty
    # vector of the same kind, which is what torchmetrics sends for it.
    assert isinstance(pairs, list)
    pairs.append(torch.stack((probs.float(), labels.float()), dim=-1).flatten())


def _auc_of_pairs(pairs: list[Tensor] | Tensor, num_aus: int) -> Tensor:
    if isinstance(pairs, list) and not pairs:
        return torch.full((num_aus,), torch.nan, dtype=torch.float64)
    scores, labels = dim_zero_cat(pairs).cpu().view(-1, num_aus, 2).unbind(-1)
    known = labels >= 0
    areas = [roc_auc(scores[known[:, n], n], labels[known[:, n], n]) for n in range(num_aus)]
    return torch.stack(areas)
