"""Attention over a feature map by strip convolutions of several lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from aurel.ops.arguments import check_shape

STRIPS = (7, 11, 21)


class MultiScaleAttention(nn.Module):
    r"""Weigh every entry of a feature map by strip convolutions of several lengths.

    .. math::
        y = x \odot \Big(W \big(a + \sum_{k \in \{7, 11, 21\}} V_k H_k a\big) + b\Big), \qquad
        a = D x

    D is a 5x5 convolution, :math:`H_k` one over k columns and :math:`V_k` one over k rows, each
    channel by itself, with biases and borders of zeros; W mixes the channels of a position.

    Args:
        channels: channels C of the map.

    Source: section 3.1.1 of MACG (Li et al., 2025), equations 1 to 4 without the projections
    :math:`\varphi_i`, which are `AUSpecificFeatures`. The text convolves rows first, the code (and
    this layer) columns first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, (1, k), padding=(0, k // 2), groups=channels),
                nn.Conv2d(channels, channels, (k, 1), padding=(k // 2, 0), groups=channels),
            )
            for k in STRIPS
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights and biases as `nn.Conv2d` does, like the authors."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for a map x (B, C, H, W)."""
        check_shape("x", x, "B C H W", C=self.channels)
        local = self.local(x)
        total = local
        for strip in self.strips:
            total = total + strip(local)
        return x * self.mix(total)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}"
