"""Batch normalisation of features in which absent nodes take no part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aurel.ops.arguments import check_mask
from aurel.ops.distances import at_least_float32


def zero_absent(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x`, (B, N, C), with zeros where `mask`, (B, N) bool, is False.

    Raises:
        ValueError: `mask` has the wrong shape, dtype or device.
    """
    check_mask(mask, x)
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)


def zero_deserted(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x`, (B, ...), with zeros for images without nodes, by `mask`, (B, N) bool.

    What such an image holds reaches no result, but NaN times zero would.
    """
    if mask is None:
        return x
    return x.masked_fill(~mask.any(1)[(..., *[None] * (x.ndim - 1))], 0)


def batch_norm(norm: nn.BatchNorm1d, x: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Apply `norm` to the channels of `x`, with statistics over what is present.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        norm: holds the C channels' parameters and running statistics.
        x: (..., C); finite where absent.
        mask: (...) bool, or (..., C) where it differs by channel, True where there is something;
            None for everywhere.

    Returns:
        (..., C), in the dtype of `x`. In training, absent entries give :math:`\beta`.
    """
    if x.numel() == 0:
        return x
    if mask is None or not norm.training:
        return norm(x.flatten(0, -2)).view(x.shape)
    wide = at_least_float32(x)
    present = (mask if mask.ndim == x.ndim else mask.unsqueeze(-1)).to(wide.dtype)
    axes = tuple(range(x.ndim - 1))
    count = present.sum(axes)
    mean = (wide * present).sum(axes) / count.clamp_min(1)
    centered = (wide - mean) * present
    variance = centered.square().sum(axes) / count.clamp_min(1)
    _track(norm, mean, variance, count)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return torch.addcmul(norm.bias, centered, scale).to(x.dtype)


@torch.no_grad()
def _track(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.momentum is None:
        raise ValueError("norm must track running statistics with a momentum")
    # Fewer than two entries have no variance: what was learned stays.
    weight = norm.momentum * (count > 1)
    unbiased = variance * count / (count - 1).clamp_min(1)
    for running, batch in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.lerp_(batch.to(running.dtype), weight.to(running.dtype))
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
