"""F1 and accuracy from counts, and the area under the ROC curve from ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def f1_from_counts(tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
    """Return the F1 of each AU; NaN where all counts, float64, are 0."""
    tiny = 1e-20
    precision = tp / (tp + fp + tiny)
    recall = tp / (tp + fn + tiny)
    f1 = 2 * precision * recall / (precision + recall + tiny)
    return f1.masked_fill(tp + fp + tn + fn == 0, torch.nan)


def accuracy_from_counts(tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
    """Return the share of correct predictions of each AU; NaN where all counts are 0."""
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
