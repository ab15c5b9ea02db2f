"""Likelihood of labels of action units along a video."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.facs.labels import known_labels
from aurel.ops.arguments import check_shape
from aurel.ops.chain_marginals import chain_marginals

_CERTAIN = 1e5
"""Evidence for a known label: exp(-1e5) is 0, and a sum of 1e5 over a long clip is exact enough."""


def log_likelihoods(
    fields: Tensor, couplings: Tensor, stay: Tensor, labels: Tensor, mask: Tensor | None
) -> Tensor:
    """Return the log-likelihood of the known labels of each clip, (B,).

    That is the log-partition over the paths that agree with the labels, less that over all.

    Args:
        fields: (B, T, N), float64.
        couplings: (N, N).
        stay: (N,), (1, T - 1, N) or (B, T - 1, N).
        labels: (B, T, N), 1, 0 or -1 (unknown).
        mask: (B, T) bool, True where the frame is valid, or None.
    """
    batch, frames, units = fields.shape
    check_shape("labels", labels, "B T N", B=batch, T=frames, N=units)
    known = known_labels(labels)
    if mask is not None:
        check_shape("frame_mask", mask, "B T", B=batch, T=frames)
        known = known & mask[..., None]
        mask = torch.cat((mask, mask))
    active = (labels == 1) & known
    certain = fields + _CERTAIN * (2.0 * active.double() - 1) * known
    if stay.ndim == 3 and len(stay) > 1:
        stay = torch.cat((stay, stay))
    log_partition, _ = chain_marginals(torch.cat((certain, fields)), couplings, stay, mask=mask)
    agreeing, whole = log_partition.split(batch)
    return agreeing - _CERTAIN * active.sum((1, 2)) - whole
