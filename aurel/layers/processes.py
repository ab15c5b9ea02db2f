"""Statistics of a batch whose images are spread over several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def processes_of(norm: nn.Module) -> Any:
    """Return the group of processes that `norm` takes its batch statistics over.

    None for this process alone: `norm` is not a norm that the converters of torch and timm put in
    place of a batch norm, or is in evaluation, or there are no other processes.
    """
    if not isinstance(norm, nn.SyncBatchNorm) or not norm.training:
        return None
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def joint_statistics(
    count: Tensor, mean: Tensor, scatter: Tensor, group: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the statistics of all processes together, from those of this one; differentiable.

    Args:
        count: number of values of each channel.
        mean: their mean, finite where there are none.
        scatter: the sum of squares of their deviations from it.
        group: the processes, of `processes_of`.

    Returns:
        The three for all processes; zero where none has a value.
    """
    local = torch.stack((count.to(mean.dtype).expand_as(mean), mean, scatter))
    rank = dist.get_rank(group)
    rows = [torch.zeros_like(local)] * dist.get_world_size(group)
    rows[rank] = local
    counts, means, scatters = _Sum.apply(torch.stack(rows), group).unbind(1)
    total = counts.sum(0)
    mean = (counts / total.clamp_min(1) * means).sum(0)
    scatter = (scatters + counts * (means - mean).square()).sum(0)
    return total, mean, scatter


class _Sum(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.group), None
