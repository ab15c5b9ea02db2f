"""The metrics as `torchmetrics.Metric`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor

from aurel.facs import AUSet, AUSpec, known_labels
from aurel.metrics._calibration import (
    best_f1_thresholds,
    check_probs,
    expected_calibration_error,
)
from aurel.metrics._intensity import intensity_scores, known_intensities
from aurel.metrics._scores import accuracy_from_counts, f1_from_counts, roc_auc

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ImportError as error:
    raise ImportError("aurel.metrics needs torchmetrics: pip install 'aurel-au[train]'") from error

Average = Literal["mean", "none"]
Threshold = float | Sequence[float] | Tensor


class _AUMetric(Metric):
    """Base of the metrics: the AU set, the average, and checks of batches and merges."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, aus: AUSpec, average: Average = "mean", **options: Any) -> None:
        super().__init__(**options)
        if average not in ("mean", "none"):
            raise ValueError(f"average must be 'mean' or 'none', got {average!r}")
        self.aus = AUSet.of(aus)
        self.average = average

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the batches of another metric of the same kind, AUs and threshold.

        Args:
            incoming_state: the metric, or its `metric_state`.

        Raises:
            ValueError: another kind, other AUs, or another threshold.
        """
        if isinstance(incoming_state, _AUMetric) and incoming_state._kind() != self._kind():
            raise ValueError(f"incoming_state must be {self._kind()}, got {incoming_state._kind()}")
        super().merge_state(incoming_state)
        self._computed = None  # else torchmetrics returns the score from before the merge

    def _kind(self) -> str:
        """Return text that is equal for metrics that can be merged."""
        return f"{type(self).__name__} of {', '.join(self.aus.names)}"

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Return `compute` with torchmetrics's cache; scores (N,) of one AU keep their shape."""
        cached = super()._wrap_compute(compute)

        @wraps(compute)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            value = cached(*args, **kwargs)
            single = self.average == "none" and isinstance(value, Tensor)
            return value.reshape(-1) if single else value

        return wrapped

    def _flatten(self, probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and labels, 1, 0 or -1, each (M, N)."""
        probs, labels = self._rows(probs, labels)
        check_probs(probs)
        return probs, torch.where(known_labels(labels), labels, -1)

    def _rows(self, probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both with shape (M, N)."""
        if probs.shape != labels.shape or probs.shape[-1] != len(self.aus):
            raise ValueError(
                f"probs and labels must both have shape (..., N={len(self.aus)}), a column for "
                f"each AU of {self.aus.name}, got {tuple(probs.shape)} and {tuple(labels.shape)}"
            )
        probs, labels = (x.detach().reshape(-1, len(self.aus)) for x in (probs, labels))
        return probs, labels

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
                f"threshold must be one number or have shape (N={len(self.aus)}), one an AU, got "
                f"{tuple(self.threshold.shape)}"
            )
        for state in ("tp", "fp", "tn", "fn"):
            zeros = torch.zeros(len(self.aus), dtype=torch.long)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")
        # A MetricCollection shares the states of metrics where all are close after one batch.
        # Bytes are close only where they are equal, and "max" of equal ones changes none.
        threshold_bytes = self.threshold.reshape(-1).view(torch.uint8)
        self.add_state("threshold_bytes", default=threshold_bytes, dist_reduce_fx="max")

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Add a batch to the counts.

        Args:
            probs: :math:`(..., N)` probabilities.
            labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        """
        self._count(*self._flatten(probs, labels))

    def _count(self, probs: Tensor, labels: Tensor) -> None:
        # In the dtype of the predictions: a float32 0.7 is less than a float64 0.7.
        detected = probs >= self.threshold.to(probs.dtype).to(probs.device)
        present, absent = labels == 1, labels == 0
        self.tp += (detected & present).sum(0)
        self.fp += (detected & absent).sum(0)
        self.tn += (~detected & absent).sum(0)
        self.fn += (~detected & present).sum(0)

    def _kind(self) -> str:
        return f"{super()._kind()} at {self.threshold.reshape(-1).tolist()}"

    def _counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tp, fp, tn, fn = (counts.cpu().double() for counts in (self.tp, self.fp, self.tn, self.fn))
        return tp, fp, tn, fn


class AUF1(_AUCounts):
    """F1 of each AU, or their mean, by the protocol of `aurel.metrics`.

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
    """Share of correct predictions of each AU, or its mean; arguments as `AUF1`.

    Where AUs are rare it is high even for a model that detects none: always report F1 with it.
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
        """Store a batch; arguments as `AUF1.update`."""
        _keep_pairs(self.pairs, *self._flatten(probs, labels))

    def compute(self) -> Tensor:
        """Return the score, 0-d or (N,)."""
        return self._averaged(_auc_of_pairs(self.pairs, len(self.aus)))


class AUScores(_AUCounts):
    """All scores of all AUs in one table.

    `compute` returns a dict from AU name to `f1`, `accuracy`, `auc`, `ece` (see
    `expected_calibration_error`), and the counts `positives` and `known`; its entry "mean" holds
    the mean of each score.

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
        """Count and store a batch; arguments as `AUF1.update`."""
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
            "ece": expected_calibration_error(*_unpack(self.pairs, len(self.aus))),
        }
        counts = {"positives": (tp + fn).long(), "known": (tp + fp + tn + fn).long()}
        return _table(self.aus, scores, counts)


class AUThresholds(_AUMetric):
    """The threshold of each AU at which its F1 is highest, see `best_f1_thresholds`.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        options: those of `torchmetrics.Metric`.
    """

    pairs: list[Tensor] | Tensor

    def __init__(self, aus: AUSpec, **options: Any) -> None:
        super().__init__(aus, "none", **options)
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Store a batch; arguments as `AUF1.update`."""
        _keep_pairs(self.pairs, *self._flatten(probs, labels))

    def compute(self) -> Tensor:
        """Return the thresholds, (N,) float64; NaN for an AU that is never present."""
        return best_f1_thresholds(*_unpack(self.pairs, len(self.aus)))


class AUIntensityScores(_AUMetric):
    """The agreement of intensities of all AUs in one table, see `intensity_scores`.

    `compute` returns a dict from AU name to `icc`, `pcc`, `mse`, `mae` and the counts `positives`
    (labels above 0) and `known`; its entry "mean" holds the mean of each score.

    Args:
        aus: the AU set of the columns, anything `AUSet.of` takes.
        options: those of `torchmetrics.Metric`.
    """

    pairs: list[Tensor] | Tensor

    def __init__(self, aus: AUSpec, **options: Any) -> None:
        super().__init__(aus, "none", **options)
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Store a batch.

        Args:
            predictions: :math:`(..., N)` intensities.
            labels: :math:`(..., N)` in [0, 5], or -1 for unknown.
        """
        predictions, labels = self._rows(predictions, labels)
        labels = torch.where(known_intensities(labels), labels, -1)
        _keep_pairs(self.pairs, predictions, labels)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return the table as plain numbers."""
        predictions, labels = _unpack(self.pairs, len(self.aus))
        counts = {"positives": (labels > 0).sum(0), "known": (labels >= 0).sum(0)}
        return _table(self.aus, intensity_scores(predictions, labels), counts)


def _table(
    aus: AUSet, scores: dict[str, Tensor], counts: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Return a row for each AU, and the mean of each score over the AUs where it is defined."""
    columns = {key: values.tolist() for key, values in {**scores, **counts}.items()}
    table = {
        name: {key: values[index] for key, values in columns.items()}
        for index, name in enumerate(aus.names)
    }
    table["mean"] = {key: values.nanmean().item() for key, values in scores.items()}
    return table


def _keep_pairs(pairs: list[Tensor] | Tensor, probs: Tensor, labels: Tensor) -> None:
    # One flat float32 vector of (score, label): a process without a batch then adds an empty
    # vector of the same kind, which is what torchmetrics sends for it.
    assert isinstance(pairs, list)
    pairs.append(torch.stack((probs.float(), labels.float()), dim=-1).flatten())


def _auc_of_pairs(pairs: list[Tensor] | Tensor, num_aus: int) -> Tensor:
    scores, labels = _unpack(pairs, num_aus)
    known = labels >= 0
    areas = [roc_auc(scores[known[:, n], n], labels[known[:, n], n]) for n in range(num_aus)]
    return torch.stack(areas)


def _unpack(pairs: list[Tensor] | Tensor, num_aus: int) -> tuple[Tensor, Tensor]:
    """Return the scores and labels that `_keep_pairs` stored, each (M, N) float32."""
    if isinstance(pairs, list) and not pairs:
        return torch.empty(0, num_aus), torch.empty(0, num_aus)
    scores, labels = dim_zero_cat(pairs).cpu().view(-1, num_aus, 2).unbind(-1)
    return scores, labels
