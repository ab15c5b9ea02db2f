"""Agreement of predicted intensities with labels from 0 to 5."""

from __future__ import annotations

import torch
from torch import Tensor

HIGHEST = 5
"""The highest intensity: 0 absent, 1 to 5 for the levels A to E of FACS."""


def icc_3_1(ratings: Tensor) -> Tensor:
    r"""Return the intraclass correlation ICC(3,1): two-way, mixed effects, single rater.

    .. math:: \mathrm{ICC}(3,1) = \frac{B - E}{B + (k - 1) E}

    with the mean square between targets B and the residual mean square E of the table of M targets
    and k raters. It measures consistency: a constant offset of a rater changes nothing.

    Args:
        ratings: :math:`(M, k)`, any dtype; prediction and label are two raters.

    Returns:
        0-d float64; NaN for fewer than two targets, and where no rating varies between targets.

    Raises:
        ValueError: another shape, or fewer than two raters.

    Source: Shrout & Fleiss, "Intraclass correlations", Psychological Bulletin 86, 1979.
    """
    if ratings.dim() != 2 or ratings.shape[1] < 2:
        raise ValueError(f"ratings must have shape (M, k >= 2), got {tuple(ratings.shape)}")
    x = ratings.detach().double()
    targets, raters = x.shape
    if targets < 2:
        return torch.tensor(torch.nan, dtype=torch.float64)
    centered = x - x.mean(0)
    of_target = centered.mean(1)
    between = raters * of_target.square().sum() / (targets - 1)
    residual = (centered - of_target[:, None]).square().sum() / ((targets - 1) * (raters - 1))
    # Rounding leaves a variance of about 1e-32 where all ratings of a rater are equal.
    if (x == x[:1]).all():
        return torch.tensor(torch.nan, dtype=torch.float64)
    return (between - residual) / (between + (raters - 1) * residual)


def intensity_scores(predictions: Tensor, labels: Tensor) -> dict[str, Tensor]:
    r"""Return the agreement of intensities, of each AU.

    - "mse": mean of :math:`(\hat y - y)^2`; "mae": mean of :math:`|\hat y - y|`.
    - "icc": `icc_3_1` of prediction and label.
    - "pcc": Pearson's correlation coefficient; NaN where one of both is constant.

    Args:
        predictions: :math:`(..., N)`.
        labels: :math:`(..., N)` in [0, 5], or -1 for unknown, which counts nowhere.

    Returns:
        By name, :math:`(N,)` float64; NaN for an AU without known labels, and for correlations that
        are not defined.

    Raises:
        ValueError: other shapes, or an invalid label.
    """
    if predictions.shape != labels.shape or labels.dim() < 1:
        raise ValueError(
            "predictions and labels must both have shape (..., N), got "
            f"{tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    known = known_intensities(labels).reshape(-1, labels.shape[-1]).cpu()
    pair = torch.stack((predictions.detach(), labels.to(predictions.dtype)), dim=-1)
    pair = pair.reshape(-1, labels.shape[-1], 2).cpu().double()
    rows = [_agreement(pair[known[:, n], n]) for n in range(known.shape[-1])]
    return {name: torch.stack([row[name] for row in rows]) for name in ("icc", "pcc", "mse", "mae")}


def known_intensities(labels: Tensor) -> Tensor:
    """Return where an intensity is known, as a bool tensor of its shape.

    Raises:
        ValueError: on the CPU, a label that is neither in [0, 5] nor -1.
    """
    known = (labels >= 0) & (labels <= HIGHEST)
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        invalid = ~(known | (labels == -1))
        if invalid.any():
            index = tuple(invalid.nonzero()[0].tolist())
            raise ValueError(
                f"labels must be in [0, {HIGHEST}], or -1 (unknown), got "
                f"{labels[index].item():g} at {index}"
            )
    return known


def _agreement(pair: Tensor) -> dict[str, Tensor]:
    difference = pair[:, 0] - pair[:, 1]
    return {
        "icc": icc_3_1(pair),
        "pcc": _pearson(pair),
        "mse": difference.square().mean(),
        "mae": difference.abs().mean(),
    }


def _pearson(pair: Tensor) -> Tensor:
    if len(pair) < 2 or (pair == pair[:1]).all(0).any():
        return torch.tensor(torch.nan, dtype=torch.float64)
    centered = pair - pair.mean(0)
    products = centered.mT @ centered
    return products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()
