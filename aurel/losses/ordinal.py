"""Losses of intensities, and intensities of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.losses._common import at_least_float32, check_pair, mean_known, weigh

LEVELS = 5
"""The levels of an intensity: 0 absent, 1 to 5 for A to E of FACS."""


def ordinal_loss(
    logits: Tensor, labels: Tensor, cutpoints: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""Return the cross-entropy of the cumulative logits of every AU.

    .. math:: L = -\frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \sum_{k=1}^{5} \left[
              [y_{bn} \ge k] \log \sigma(s_{bn} - \theta_{nk})
              + [y_{bn} < k] \log(1 - \sigma(s_{bn} - \theta_{nk})) \right]

    with M the number of known labels in the batch. One score s and the ordered cutpoints
    :math:`\theta_n` give :math:`P(y_n \ge k) = \sigma(s_n - \theta_{nk})`, which does not increase
    with k.

    Args:
        logits: :math:`(..., N)` scores s.
        labels: :math:`(..., N)` whole numbers 0 to 5, or -1 for unknown.
        cutpoints: :math:`(N, 5)`, see `ordinal_cutpoints`.
        weights: :math:`(N,)` class weights; None means 1.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or another label (on the CPU).

    Source: the cumulative link model of McCullagh, "Regression models for ordinal data", JRSS B,
    1980, with the loss of Cao et al., "Rank consistent ordinal regression", Pattern Recognition
    Letters 2020, whose cutpoints are trained.
    """
    check_pair("logits", logits, labels)
    _check_cutpoints(cutpoints, logits.shape[-1])
    known = _known_levels(labels)
    scores = torch.where(known, logits.to(at_least_float32(logits.dtype)), 0)
    levels = torch.arange(1, LEVELS + 1, device=labels.device)
    reached = (labels[..., None] >= levels).to(scores.dtype)
    cumulative = scores[..., None] - cutpoints.to(scores)
    entropy = F.binary_cross_entropy_with_logits(cumulative, reached, reduction="none").sum(-1)
    return mean_known(weigh(entropy, weights), known)


def ordinal_cutpoints(labels: Tensor) -> Tensor:
    r"""Return the cutpoints at which a score of 0 for P(y >= 1) gives the rates of the labels.

    .. math:: \theta_{nk} = \operatorname{logit} r_{n1} - \operatorname{logit} r_{nk}, \qquad
              r_{nk} = \frac{|\{b : y_{bn} \ge k\}| + 1/2}{M_n + 1}

    with :math:`M_n` the number of known labels of AU n. The first is 0, so that the sigmoid of a
    score is the probability that the AU is present at any level, and they do not decrease with k.

    Args:
        labels: :math:`(..., N)` whole numbers 0 to 5 of the training data, or -1 for unknown.

    Returns:
        :math:`(N, 5)` float32.

    Raises:
        ValueError: another label (on the CPU).
    """
    known = _known_levels(labels).reshape(-1, labels.shape[-1])
    rows = labels.reshape(-1, labels.shape[-1])
    levels = torch.arange(1, LEVELS + 1, device=labels.device)
    reached = ((rows[..., None] >= levels) & known[..., None]).sum(0).double()
    rates = (reached + 0.5) / (known.sum(0).double()[:, None] + 1)
    logits = rates.logit()
    return (logits[:, :1] - logits).float()


def ordinal_intensity(logits: Tensor, cutpoints: Tensor) -> Tensor:
    r"""Return the expected intensity of every AU.

    .. math:: \hat y_n = \sum_{k=1}^{5} \sigma(s_n - \theta_{nk}) \in [0, 5]

    Args:
        logits: :math:`(..., N)` scores s.
        cutpoints: :math:`(N, 5)`, see `ordinal_cutpoints`.

    Returns:
        :math:`(..., N)`, float32 at least.
    """
    _check_cutpoints(cutpoints, logits.shape[-1])
    scores = logits.to(at_least_float32(logits.dtype))
    return (scores[..., None] - cutpoints.to(scores)).sigmoid().sum(-1)


def _check_cutpoints(cutpoints: Tensor, count: int) -> None:
    if tuple(cutpoints.shape) != (count, LEVELS):
        raise ValueError(
            f"cutpoints must have shape (N={count}, {LEVELS}), got {tuple(cutpoints.shape)}"
        )


def _known_levels(labels: Tensor) -> Tensor:
    """Return where a label is a level; on the CPU, raise ValueError for other values than -1."""
    known = (labels >= 0) & (labels <= LEVELS) & (labels == labels.round())
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        invalid = ~(known | (labels == -1))
        if invalid.any():
            index = tuple(invalid.nonzero()[0].tolist())
            raise ValueError(
                f"labels must be whole numbers 0 to {LEVELS}, or -1 (unknown), got "
                f"{labels[index].item():g} at {index}"
            )
    return known
