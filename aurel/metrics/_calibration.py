"""The calibration error of probabilities, and thresholds at which the F1 is highest."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aurel.facs import known_labels

Binning = Literal["width", "mass"]


def expected_calibration_error(
    probs: Tensor, labels: Tensor, *, bins: int = 15, equal: Binning = "width"
) -> Tensor:
    r"""Return the expected calibration error of each AU.

    .. math:: \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{M} \left| \bar p_b - \bar y_b \right|

    over B bins of the M known samples of an AU, with their number :math:`n_b`, mean probability
    :math:`\bar p_b` and share of present labels :math:`\bar y_b`; an empty bin adds nothing. Bins
    of equal width are :math:`[(b - 1) / B, b / B)`, and the last one holds 1, too. Of bins of equal
    mass, a sample is in bin :math:`\lfloor B r / M \rfloor` (from 0) where r samples have a lower
    probability, so equal probabilities share a bin, and without them the sizes differ by one at
    most.

    Args:
        probs: :math:`(..., N)` in [0, 1].
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.
        bins: B.
        equal: "width" or "mass".

    Returns:
        :math:`(N,)` float64; NaN for an AU without known labels, or with a NaN probability.

    Raises:
        ValueError: other shapes, an invalid label or probability, fewer than one bin, or another
            kind of bins.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015, with the probability of presence as confidence; Nixon et al., "Measuring calibration in
    deep learning", CVPR Workshops 2019, for bins of equal mass.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if equal not in ("width", "mass"):
        raise ValueError(f"equal must be 'width' or 'mass', got {equal!r}")
    columns = known_columns(probs, labels)
    errors = [_calibration_error(p, y, bins, equal) for p, y in columns]
    return torch.stack(errors) if errors else torch.empty(0, dtype=torch.float64)


def best_f1_thresholds(probs: Tensor, labels: Tensor) -> Tensor:
    """Return the threshold of each AU at which its F1 on these labels is highest.

    Candidates are the probabilities of known samples; p >= threshold is a detection. Of thresholds
    with the same F1 the highest is taken, which detects least. Choose thresholds on validation
    data: on test data they make the test score too high.

    Args:
        probs: :math:`(..., N)` in [0, 1]; a NaN is never detected.
        labels: :math:`(..., N)`, 1 present, 0 absent, -1 unknown.

    Returns:
        :math:`(N,)` float64; NaN for an AU that is never present, whose F1 is 0 at any threshold.

    Raises:
        ValueError: other shapes, or an invalid label or probability.
    """
    found = [_best_threshold(p, y) for p, y in known_columns(probs, labels)]
    return torch.stack(found) if found else torch.empty(0, dtype=torch.float64)


def check_probs(probs: Tensor) -> None:
    """Raise ValueError, with the value and its index, where a probability is not in [0, 1].

    NaN passes. As in `known_labels`, values are checked on the CPU only.
    """
    if probs.device.type != "cpu" or torch.compiler.is_compiling():
        return
    invalid = (probs < 0) | (probs > 1)
    if invalid.any():
        index = tuple(invalid.nonzero()[0].tolist())
        raise ValueError(f"probs must be in [0, 1], got {probs[index].item():g} at {index}")


def known_columns(probs: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the known samples of each AU: probabilities and labels, each (M_n,) float64."""
    if probs.shape != labels.shape or probs.dim() < 1:
        raise ValueError(
            "probs and labels must both have shape (..., N), got "
            f"{tuple(probs.shape)} and {tuple(labels.shape)}"
        )
    check_probs(probs)
    known = known_labels(labels).reshape(-1, labels.shape[-1]).cpu()
    probs, labels = (x.detach().reshape(-1, x.shape[-1]).cpu().double() for x in (probs, labels))
    return [(probs[known[:, n], n], labels[known[:, n], n]) for n in range(known.shape[-1])]


def _calibration_error(probs: Tensor, labels: Tensor, bins: int, equal: Binning) -> Tensor:
    if not len(probs) or probs.isnan().any():
        return torch.tensor(torch.nan, dtype=torch.float64)
    if equal == "width":
        # Compared with the edges b / B themselves: floor(B p) is wrong for some of them.
        edges = torch.arange(1, bins, dtype=torch.float64) / bins
        index = torch.searchsorted(edges, probs, right=True)
    else:
        index = bins * torch.searchsorted(probs.sort().values, probs) // len(probs)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, index, probs - labels)
    return gaps.abs().sum() / len(probs)


def _best_threshold(probs: Tensor, labels: Tensor) -> Tensor:
    positives = (labels == 1).sum()
    finite = ~probs.isnan()
    candidates, order = probs[finite].sort(descending=True)
    if not positives or not len(candidates):
        return torch.tensor(torch.nan, dtype=torch.float64)
    hits = (labels[finite] == 1)[order].cumsum(0)
    detected = torch.arange(1, len(candidates) + 1)
    f1 = 2 * hits.double() / (detected + positives)
    # A threshold detects all samples with its value, so the last of them has the counts.
    last = torch.ones_like(candidates, dtype=torch.bool)
    last[:-1] = candidates[:-1] != candidates[1:]
    f1 = f1.masked_fill(~last, -1)
    first_best = (f1 == f1.max()).nonzero()[0, 0]
    return candidates[first_best] if f1[first_best] > 0 else torch.tensor(torch.nan).double()
