"""Class weights from the labels of the training samples."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs import check_labels


def au_class_weights(labels: Tensor) -> Tensor:
    r"""Return weights that are inversely proportional to the frequency of each AU.

    .. math:: w_n = N \frac{1 / r_n}{\sum_m 1 / r_m}

    where :math:`r_n` is the share of present among the known labels of AU n. Two cases that the
    papers leave open: an AU that is never present has the weight of the rarest that is (all weights
    are 1 if none is ever present); an AU without any known label has weight 1, and the weights of
    the others are those without it. The weights sum to N.

    Args:
        labels: :math:`(M, N)` labels of the *training* samples, 1 present, 0 absent, -1 unknown.

    Returns:
        :math:`(N,)` float32.

    Raises:
        ValueError: not two-dimensional, or a label other than 1, 0, -1.

    Source: SACL, section 3.6; the code of ME-GraphAU, MDHR and MACG has these numbers in files.
    """
    if labels.dim() != 2:
        raise ValueError(f"labels must have shape (M, N), got {tuple(labels.shape)}")
    check_labels(labels)
    known = (labels >= 0).sum(0)
    present = (labels == 1).sum(0)
    inverse = known.double() / present
    finite = inverse[inverse.isfinite()]
    inverse = inverse.clamp(max=finite.max() if len(finite) else 1)
    annotated = known > 0
    mean = torch.where(annotated, inverse, 0).sum() / annotated.sum()
    return torch.where(annotated, inverse / mean, 1).float()
