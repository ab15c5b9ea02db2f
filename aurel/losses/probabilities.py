"""Losses of AU probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs import known_labels
from aurel.losses._common import at_least_float32, check_pair, mean_known, weigh


def weighted_asymmetric_loss(
    probs: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    detach_focus: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    r"""Return the weighted asymmetric loss: cross-entropy that gives easy negatives less weight.

    .. math:: L = -\frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \left[ y_{bn} \log p_{bn}
              + p_{bn} (1 - y_{bn}) \log(1 - p_{bn}) \right]

    with M the number of known labels in the batch, so the mean is over the entries that remain (as
    in OpenGraphAU); without unknown labels that is the mean over batch and AUs of ME-GraphAU, MACG
    and MDHR. Logarithms are cut at `eps`: beyond it an entry has no gradient. Probabilities
    are cut to [0, 1] first, since a cosine may round past its ends.

    Args:
        probs: :math:`(..., N)` probabilities (a cosine head's output as it is, no sigmoid).
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None means 1.
        detach_focus: treat the factor p of the negative term as a constant, as the authors' code
            does, but not their equations. False differentiates the equation as printed.
        eps: floor inside the logarithms; for float16 input no less than its smallest normal number
            (6.1e-5), so that the gradient stays in its range.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: ME-GraphAU (Luo et al., 2022); SACL, equation 4.
    """
    eps = max(eps, torch.finfo(probs.dtype).tiny)
    probs, labels, known = _prepare(probs, labels)
    focus = probs.detach() if detach_focus else probs
    positive = labels * probs.clamp_min(eps).log()
    negative = (1 - labels) * focus * (1 - probs).clamp_min(eps).log()
    return mean_known(-weigh(positive + negative, weights), known)


def multilabel_dice_loss(
    probs: Tensor, labels: Tensor, weights: Tensor | None = None, *, smooth: float = 1.0
) -> Tensor:
    r"""Return the weighted Dice loss, the mean over AUs and samples.

    .. math:: L = \frac{1}{M} \sum_{(b,n)\ \text{known}} w_n \left( 1 -
              \frac{2 y_{bn} p_{bn} + \varepsilon}{y_{bn}^2 + p_{bn}^2 + \varepsilon} \right)

    with M the number of known labels in the batch.

    Args:
        probs: :math:`(..., N)` probabilities.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        weights: :math:`(N,)` class weights, see `au_class_weights`; None means 1.
        smooth: :math:`\varepsilon`. The paper gives no value; 1 is a choice of this library.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: shapes that do not match, or a label other than 1, 0, -1 (on the CPU).

    Source: SACL, equation 5.
    """
    probs, labels, known = _prepare(probs, labels)
    overlap = (2 * labels * probs + smooth) / (labels.square() + probs.square() + smooth)
    return mean_known(weigh(1 - overlap, weights), known)


def _prepare(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities in [0, 1] and labels, in float32 at least, and where labels are known.

    Probabilities of unknown labels are a constant, so neither NaN nor gradient passes there.
    """
    check_pair("probs", probs, labels)
    known = known_labels(labels)
    dtype = at_least_float32(probs.dtype)
    probs = torch.where(known, probs.to(dtype), 0.5).clamp(0, 1)
    return probs, labels.to(dtype), known
