"""Batch normalization with statistics for each node, or for each pair of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.layers.processes import joint_statistics, processes_of
from aurel.ops.arguments import check_shape


class GraphBatchNorm(nn.Module):
    r"""Normalize every entry of a graph over images and features.

    .. math::
        y_{be} = \gamma_e \frac{x_{be} - \mu_e}{\sqrt{\sigma_e^2 + \epsilon}} + \beta_e

    for entries e, each with C features: `nn.BatchNorm1d` over the flattened entries, its running
    statistics included, except that absent entries enter no statistic. `affine` gives the same for
    values that would not fit into memory, from their mean and scatter in each image;
    `fixed_statistics` and `update_statistics` are for an op that normalizes by itself.

    The converters of torch and timm to `nn.SyncBatchNorm` convert it, too: its statistics in
    training are then those of all processes, on any device.

    Args:
        entries: (N,) for nodes, (N, N) for pairs of nodes; the shape of parameters and buffers.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics; None for their plain average.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, entries: tuple[int, ...], eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        super().__init__()
        self.entries = tuple(entries)
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.empty(self.entries))
        self.bias = nn.Parameter(torch.empty(self.entries))
        self.register_buffer("running_mean", torch.zeros(self.entries))
        self.register_buffer("running_var", torch.ones(self.entries))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        # Without tensors and never called: converters replace it by one that holds the processes.
        self.processes = nn.BatchNorm1d(1, affine=False, track_running_stats=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize to the identity, with initial running statistics."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x, normalized.

        Args:
            x: (B, *entries, C).
            mask: (B, *entries) bool, True where the entry exists; absent ones give zeros.

        Returns:
            (B, *entries, C), in the dtype of x; statistics are in float32 at least.

        Raises:
            ValueError: x does not have these entries, or one value an entry in training.
        """
        letters = "NM"[: len(self.entries)]
        layout = " ".join(["B", *letters, "C"])
        check_shape("x", x, layout, **dict(zip(letters, self.entries, strict=True)))
        if mask is None and self.momentum is not None and not self.is_synchronized():
            return self._plain(x, self.momentum)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if mask is not None:
            wide = wide.where(mask.unsqueeze(-1), 0.0)
        mean = wide.mean(-1)
        deviation = wide - mean.unsqueeze(-1)
        scatter = deviation.square().sum(-1) if self.training else None
        scale, shift = self.affine(mean, scatter, x.shape[-1], mask)
        out = torch.addcmul(shift.unsqueeze(-1), deviation, scale.unsqueeze(-1))
        return out.to(x.dtype)

    if TYPE_CHECKING:
        __call__ = forward

    def affine(
        self,
        mean: Tensor,
        scatter: Tensor | None,
        count: int,
        mask: Tensor | None = None,
        origin: Tensor | float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        r"""Return the normalization of values given by their two moments in each image.

        .. math::
            y - \bar x_{be} \mapsto a_e\, (x - \bar x_{be}) + c_{be}

        Args:
            mean: :math:`\bar x`, (B, *entries), float32 at least, less `origin`.
            scatter: (B, *entries), sum of squares about that mean; may be None in evaluation.
            count: values behind each mean.
            mask: (B, *entries) bool, True where the entry exists.
            origin: scalar that is added to all means. Given apart, it costs the differences between
                means no digits.

        Returns:
            Scale :math:`a`, (*entries), and shift :math:`c`, (B, *entries), zero where absent.

        Raises:
            ValueError: there is one value an entry in training.
        """
        if mask is not None:
            mean = mean.where(mask, 0.0)
        if self._uses_batch(mean.shape[0]):
            assert scatter is not None
            if mask is not None:
                scatter = scatter.where(mask, 0.0)
            total = self._total(mean.shape[0], count, mask, mean.dtype)
            center = mean.sum(0) * (count / total)
            deviation = _deviation(mean, center, mask)
            scatter = scatter.sum(0) + count * deviation.square().sum(0)
            if (group := processes_of(self.processes)) is not None:
                images = mean.new_tensor(len(mean)) if mask is None else mask.sum(0)
                total, center, scatter = joint_statistics(images * count, center, scatter, group)
                total = total.clamp_min(1)
                deviation = _deviation(mean, center, mask)
            var = scatter / total
            self._track(center + origin, var, total)
        else:
            deviation = mean - (self.running_mean.to(mean.dtype) - origin)
            var = self.running_var.to(mean.dtype)
        scale = self.weight.to(mean.dtype) * torch.rsqrt(var + self.eps)
        shift = torch.addcmul(self.bias.to(mean.dtype), deviation, scale)
        return scale, shift if mask is None else shift.where(mask, 0.0)

    def fixed_statistics(self, images: int) -> tuple[Tensor, Tensor] | None:
        """Return the running mean and variance; None where those of the batch are to be used."""
        return None if self._uses_batch(images) else (self.running_mean, self.running_var)

    def update_statistics(
        self, mean: Tensor, var: Tensor, images: int, count: int, mask: Tensor | None = None
    ) -> None:
        """Add a batch to the running statistics, where `fixed_statistics` is None.

        Args:
            mean: (*entries), float32 at least.
            var: (*entries), biased.
            images: number B of images.
            count: values an entry has in an image.
            mask: (B, *entries) bool, True where the entry exists.

        Raises:
            ValueError: there is one value an entry.
        """
        if self._uses_batch(images):
            self._track(mean, var, self._total(images, count, mask, mean.dtype))

    def is_synchronized(self) -> bool:
        """Return whether the next statistics are those of several processes.

        `fixed_statistics` and `update_statistics` are of this process only: use `forward` or
        `affine`.
        """
        return processes_of(self.processes) is not None

    def _uses_batch(self, images: int) -> bool:
        # An empty batch has no statistics, but other processes wait for this one.
        return self.training and (images > 0 or self.is_synchronized())

    def _plain(self, x: Tensor, momentum: float) -> Tensor:
        training = self._uses_batch(x.shape[0])
        if training:
            self.num_batches_tracked.add_(1)
        out = F.batch_norm(
            x.flatten(1, -2),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training,
            momentum,
            self.eps,
        )
        return out.view(x.shape)

    def _total(
        self, images: int, count: int, mask: Tensor | None, dtype: torch.dtype
    ) -> Tensor | int:
        """Return the number of values behind each entry's statistics, 1 where there is none."""
        if mask is not None:
            return (mask.sum(0) * count).clamp_min(1).to(dtype)
        if self.is_synchronized():
            return max(images * count, 1)
        if images * count < 2:
            raise ValueError("x must have more than one value an entry in training, got one image")
        return images * count

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, total: Tensor | int) -> None:
        self.num_batches_tracked.add_(1)
        share: Tensor | float
        if self.momentum is None:
            share = self.num_batches_tracked.to(mean.dtype).reciprocal()
        else:
            share = self.momentum
        if isinstance(total, Tensor):
            # An entry that no image has keeps its running statistics.
            share = (total > 1).to(mean.dtype) * share
            unbiased = var * (total / (total - 1).clamp_min(1))
        else:
            unbiased = var * (total / (total - 1))
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
            weight = share.to(running.dtype) if isinstance(share, Tensor) else share
            running.lerp_(batch.to(running.dtype), weight)

    def extra_repr(self) -> str:
        return f"{self.entries}, eps={self.eps}, momentum={self.momentum}"


def _deviation(mean: Tensor, center: Tensor, mask: Tensor | None) -> Tensor:
    """Return the differences of the images' means from `center`, zero where absent."""
    return mean - center if mask is None else (mean - center).where(mask, 0.0)
