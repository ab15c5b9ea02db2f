"""Losses of AU logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.facs import known_labels
from aurel.losses._common import at_least_float32, check_pair, check_weights, mean_known, weigh


def binary_cross_entropy_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""Return the binary cross-entropy of every AU.

    .. math:: L = -\frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \left[ y_{bn} \log \sigma(s_{bn})
              + (1 - y_{bn}) \log(1 - \sigma(s_{bn})) \right]

    with M the number of known labels in the batch.

    Args:
        logits: :math:`(..., N)` scores s, before the sigmoid.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None means 1.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: LRP (Yu et al., 2023), equation 1, without weights.
    """
    logits, known = _prepare(logits, labels)
    target = labels.clamp_min(0).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return mean_known(weigh(entropy, weights), known)


def multilabel_circle_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return a loss that moves all present AUs of a face above 0 and all absent ones below.

    .. math:: L = \frac{1}{S} \sum_b \left[
              \log\Big(1 + \sum_{n:\, y_{bn} = 0} w_n e^{s_{bn}}\Big) +
              \log\Big(1 + \sum_{n:\, y_{bn} = 1} w_n e^{-s_{bn}}\Big) \right]

    over the S samples with a known label. The gradient of a sample goes mostly to the AUs
    with the largest errors, however many are correct.

    Args:
        logits: :math:`(..., N)` scores s, before the sigmoid.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None, as in the paper, means 1.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: LRP (Yu et al., 2023), equation 2, added to `binary_cross_entropy_loss`. The weights are
    an addition of this library.
    """
    logits, known = _prepare(logits, labels)
    total = logits.new_zeros(logits.shape[:-1])
    for label, scores in ((0, logits), (1, -logits)):
        if weights is not None:
            check_weights(weights, logits.shape[-1])
            scores = scores + weights.to(scores).log()
        counted = F.pad(scores.masked_fill(labels != label, -torch.inf), (1, 0))
        total = total + counted.logsumexp(-1)
    return mean_known(total, known.any(-1))


def _prepare(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, in float32 at least and 0 where unknown, and where labels are known."""
    check_pair("logits", logits, labels)
    known = known_labels(labels)
    return torch.where(known, logits.to(at_least_float32(logits.dtype)), 0), known
