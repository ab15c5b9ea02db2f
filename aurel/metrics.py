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

A metric accumulates batches with `update`, returns the score of all of them with `compute`, and
starts anew with `reset`. With torch.distributed, `compute` merges the batches of all processes, and
every process must call it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aurel.facs import AUSet, AUSpec, known_labels

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


class _AUMetric(nn.Module):
    """Base of the metrics: the state, its merging, and the checks of a batch.

    The state is no buffer, so it is in no checkpoint and no average of weights: `counts` (4, N)
    int64 of true positives, false positives, true negatives and false negatives, and `pairs`, a
    list of (M, N, 2) float32 scores and labels. Both are on the device of the batches.
    """

    counts: Tensor
    pairs: list[Tensor]
    update_called: bool

    def __init__(self, aus: AUSpec, average: Average = "mean") -> None:
        super().__init__()
        if average not in ("mean", "none"):
            raise ValueError(f"average must be 'mean' or 'none', got {average!r}")
        self.aus = AUSet.of(aus)
        self.average = average
        self.reset()

    def forward(self, probs: Tensor, labels: Tensor) -> Any:
        """Add a batch and return the score of that batch alone; arguments as `update`."""
        batch = copy.copy(self)
        batch.reset()
        batch.update(probs, labels)
        self.merge_state(batch)
        return batch._score(*batch._state())

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            probs: :math:`(..., N)` probabilities.
            labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.

        Raises:
            ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).
        """
        if probs.shape != labels.shape or probs.shape[-1] != len(self.aus):
            raise ValueError(
                f"probs and labels must both be (..., {len(self.aus)}), one column for each AU of "
                f"{self.aus.name}, got {tuple(probs.shape)} and {tuple(labels.shape)}"
            )
        probs, labels = (x.detach().reshape(-1, len(self.aus)) for x in (probs, labels))
        self._add(probs, torch.where(known_labels(labels), labels, -1))
        self.update_called = True

    def compute(self) -> Any:
        """Return the score of all batches since the last `reset`, of all processes."""
        state = self._state()
        states = [state]
        if dist.is_available() and dist.is_initialized():
            states = [state] * dist.get_world_size()
            dist.all_gather_object(states, state)
        counts, pairs = zip(*states, strict=True)
        return self._score(torch.stack(counts).sum(0), torch.cat(pairs))

    def reset(self) -> None:
        """Forget all batches."""
        self.counts = torch.zeros(4, len(self.aus), dtype=torch.long)
        self.pairs = []
        self.update_called = False

    def merge_state(self, other: Self) -> None:
        """Add the batches of `other`, a metric of the same kind and AUs.

        Raises:
            ValueError: another kind, or other AUs.
        """
        if type(other) is not type(self) or other.aus != self.aus:
            raise ValueError(
                f"other must be a {type(self).__name__} of {self.aus.names}, got a "
                f"{type(other).__name__} of {other.aus.names}"
            )
        self.counts = self.counts.to(other.counts.device) + other.counts
        self.pairs = self.pairs + other.pairs
        self.update_called |= other.update_called

    def _add(self, probs: Tensor, labels: Tensor) -> None:
        """Add probabilities and labels, 1, 0 or -1, each (M, N)."""
        raise NotImplementedError

    def _score(self, counts: Tensor, pairs: Tensor) -> Any:
        """Return the score of a state, (4, N) int64 and (M, N, 2) float32 on the CPU."""
        raise NotImplementedError

    def _state(self) -> tuple[Tensor, Tensor]:
        """Return counts and pairs of this process as `_score` takes them."""
        pairs = [pair.cpu() for pair in self.pairs]
        return self.counts.cpu(), torch.cat([torch.zeros(0, len(self.aus), 2), *pairs])

    def _averaged(self, scores: Tensor) -> Tensor:
        return scores.nanmean() if self.average == "mean" else scores


class _AUCounts(_AUMetric):
    """Counts of true and false positives and negatives per AU."""

    def __init__(self, aus: AUSpec, threshold: Threshold = 0.5, average: Average = "mean") -> None:
        super().__init__(aus, average)
        self.threshold = torch.as_tensor(threshold, dtype=torch.float64)
        if self.threshold.dim() > 1 or self.threshold.numel() not in (1, len(self.aus)):
            raise ValueError(
                f"threshold must be one number or one an AU ({len(self.aus)}), got shape "
                f"{tuple(self.threshold.shape)}"
            )

    def _add(self, probs: Tensor, labels: Tensor) -> None:
        # In the dtype of the predictions: a float32 0.7 is below a float64 0.7.
        detected = probs >= self.threshold.to(probs.dtype).to(probs.device)
        present, absent = labels == 1, labels == 0
        cells = (detected & present, detected & absent, ~detected & absent, ~detected & present)
        batch = torch.stack([cell.sum(0) for cell in cells])
        self.counts = self.counts.to(batch.device) + batch


class AUF1(_AUCounts):
    """F1 of each AU, or their mean; see the module's text for the protocol.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        threshold: one number or one an AU; p >= threshold is a detection.
        average: "mean" over the AUs, or "none" for all of them, :math:`(N,)`.
    """

    def _score(self, counts: Tensor, pairs: Tensor) -> Tensor:
        return self._averaged(f1_from_counts(*counts.double()))


class AUAccuracy(_AUCounts):
    """Share of right predictions of each AU, or its mean; arguments as `AUF1`.

    Rare AUs make it high for a model that detects nothing: never read it without F1.
    """

    def _score(self, counts: Tensor, pairs: Tensor) -> Tensor:
        return self._averaged(accuracy_from_counts(*counts.double()))


class AUAUC(_AUMetric):
    """Area under the ROC curve of each AU, or its mean.

    Exact: it keeps every score (8 bytes a sample and AU), 10 MB for a test fold of BP4D.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        average: "mean" over the AUs where it is defined, or "none" for all, :math:`(N,)`.
    """

    def _add(self, probs: Tensor, labels: Tensor) -> None:
        self.pairs.append(torch.stack((probs.float(), labels.float()), dim=-1))

    def _score(self, counts: Tensor, pairs: Tensor) -> Tensor:
        return self._averaged(_auc_of_pairs(pairs))


class AUScores(_AUCounts):
    """All scores of all AUs in one table.

    `compute` returns a dict from AU name to `f1`, `accuracy`, `auc`, and the counts `positives` and
    `known`; its entry "mean" holds the mean `f1`, `accuracy` and `auc`.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        threshold: one number or one an AU; p >= threshold is a detection.
    """

    def __init__(self, aus: AUSpec, threshold: Threshold = 0.5) -> None:
        super().__init__(aus, threshold)

    def _add(self, probs: Tensor, labels: Tensor) -> None:
        super()._add(probs, labels)
        self.pairs.append(torch.stack((probs.float(), labels.float()), dim=-1))

    def _score(self, counts: Tensor, pairs: Tensor) -> dict[str, dict[str, float]]:
        tp, fp, tn, fn = counts.double()
        scores = {
            "f1": f1_from_counts(tp, fp, tn, fn),
            "accuracy": accuracy_from_counts(tp, fp, tn, fn),
            "auc": _auc_of_pairs(pairs),
        }
        numbers = {"positives": (tp + fn).long(), "known": (tp + fp + tn + fn).long()}
        columns = {key: values.tolist() for key, values in {**scores, **numbers}.items()}
        table = {
            name: {key: values[index] for key, values in columns.items()}
            for index, name in enumerate(self.aus.names)
        }
        table["mean"] = {key: values.nanmean().item() for key, values in scores.items()}
        return table


def _auc_of_pairs(pairs: Tensor) -> Tensor:
    """Return the AUC of each AU, (N,) float64, from scores and labels (M, N, 2)."""
    scores, labels = pairs.unbind(-1)
    known = labels >= 0
    columns = range(pairs.shape[1])
    areas = [roc_auc(scores[known[:, n], n], labels[known[:, n], n]) for n in columns]
    return torch.stack(areas)
