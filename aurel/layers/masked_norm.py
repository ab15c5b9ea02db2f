"""Batch normalization with statistics over valid nodes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aurel.layers.processes import joint_statistics, processes_of
from aurel.ops.arguments import check_mask
from aurel.ops.distances import at_least_float32


def zero_absent(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x`, (B, N, C), with zeros where `mask`, (B, N) bool, is False.

    Raises:
        ValueError: `mask` has the wrong shape, dtype or device.
    """
    check_mask(mask, x)
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)


def zero_empty_graphs(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x`, (B, ...), with zeros for graphs without valid nodes, by `mask`, (B, N) bool.

    Such a graph has no part in any result; but NaN, times a weight of zero, would.
    """
    if mask is None:
        return x
    return x.masked_fill(~mask.any(1)[(..., *[None] * (x.ndim - 1))], 0)


def mask_of_rows(layer: nn.Module, rows: Tensor) -> Tensor | None:
    """Return the mask for rows that are all valid, to be normalized by a layer: mostly None.

    Plain batch normalization refuses a single row, and that of several processes refuses a CPU;
    those get a mask (M,) of True for `rows`, (M, C).
    """
    joint = any(isinstance(part, nn.SyncBatchNorm) for part in layer.modules())
    if len(rows) > 1 and not joint:
        return None
    return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


class MaskedBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` that takes a mask, so that hooks observe masked calls, too."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (M, C) for x (M, C), with statistics over `mask`, (M, 1) or (M, C) bool."""
        return super().forward(x) if mask is None else _normalize(self, x, mask)


def batch_norm(norm: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return `x` normalized in every channel, with statistics over its valid entries.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Args:
        norm: holds the C channels' parameters and running statistics: a `MaskedBatchNorm`, a
            `nn.BatchNorm1d`, or the `nn.SyncBatchNorm` that a converter put in its place, whose
            statistics with a mask are those of all processes, on any device.
        x: (..., C); finite where absent.
        mask: (...) bool, or (..., C) where it differs by channel, True where the entry is valid;
            None for everywhere.

    Returns:
        (..., C), in the dtype of `x`. In training, invalid entries give :math:`\beta`.
    """
    if x.numel() == 0 and processes_of(norm) is None:
        return x
    rows = x.flatten(0, -2)
    if mask is None or not norm.training:
        return norm(rows).view(x.shape)
    valid = (mask if mask.ndim == x.ndim else mask.unsqueeze(-1)).flatten(0, -2)
    masked = norm if isinstance(norm, MaskedBatchNorm) else partial(_normalize, norm)
    return masked(rows, valid).view(x.shape)


def _normalize(norm: Any, x: Tensor, mask: Tensor) -> Tensor:
    wide = at_least_float32(x)
    valid = mask.to(wide.dtype)
    count = valid.sum(0)
    mean = (wide * valid).sum(0) / count.clamp_min(1)
    centered = (wide - mean) * valid
    scatter = centered.square().sum(0)
    if (group := processes_of(norm)) is not None:
        count, mean, scatter = joint_statistics(count, mean, scatter, group)
        centered = (wide - mean) * valid
    variance = scatter / count.clamp_min(1)
    _track(norm, mean, variance, count)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return torch.addcmul(norm.bias, centered, scale).to(x.dtype)


@torch.no_grad()
def _track(norm: Any, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.momentum is None:
        raise ValueError(f"norm must track running statistics with a momentum, got {norm}")
    # Fewer than two entries have no variance: running statistics stay.
    weight = norm.momentum * (count > 1)
    unbiased = variance * count / (count - 1).clamp_min(1)
    for running, batch in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.lerp_(batch.to(running.dtype), weight.to(running.dtype))
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
