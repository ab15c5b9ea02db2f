"""Attention over the positions of a feature map, learned without landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.ops.arguments import check_shape


class LocalRegionPerception(nn.Module):
    r"""Weigh every position of a feature map by the best of several small attention networks.

    .. math::
        y = x \odot \sigma\Big(\max_{m = 1 \dots M}
            \big(w_m^\top \mathrm{ReLU}(W_m x + b_m) + c_m\big)\Big)

    :math:`W_m` takes the C channels of a position to C / r, :math:`w_m` those to one number, so
    each of the M networks (LANets) is two 1x1 convolutions; a position has one weight for all its
    channels.

    Args:
        channels: channels C of the map.
        networks: number M of attention networks.
        reduction: factor r by which they reduce the channels.

    Raises:
        ValueError: `networks` is below 1, or `reduction` not in 1..C.

    Source: section 3.1 of Yu et al., CVPR Workshops 2023 (LRP). "Several" networks and the rate r
    have no value in the paper: 4 and 16 are choices of this library, as is the ReLU between the
    convolutions, which the work that it cites for LANet has (Wang & Guo, IEEE TIFS 2019).
    """

    def __init__(self, channels: int, networks: int = 4, reduction: int = 16) -> None:
        super().__init__()
        if networks < 1:
            raise ValueError(f"networks must be at least 1, got {networks}")
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction must be in 1..{channels} (channels), got {reduction}")
        self.channels = channels
        self.networks = networks
        self.reduction = reduction
        hidden = networks * (channels // reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.score = nn.Conv2d(hidden, networks, 1, groups=networks)

    def reset_parameters(self) -> None:
        """Initialize weights and biases as `nn.Conv2d` does."""
        self.reduce.reset_parameters()
        self.score.reset_parameters()

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights (B, 1, H, W), in 0..1, for a map x (B, C, H, W)."""
        check_shape("x", x, "B C H W", C=self.channels)
        return self.score(F.relu(self.reduce(x))).amax(1, keepdim=True).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for a map x (B, C, H, W)."""
        return x * self.attention(x)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, networks={self.networks}, reduction={self.reduction}"
