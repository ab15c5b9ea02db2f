"""Blocks of ResT (Zhang & Yang, NeurIPS 2021, sections 3 and 4): stem, attention, stages."""

from __future__ import annotations

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-5


class PixelAttention(nn.Module):
    r"""Positional encoding from content: :math:`x \odot \sigma(\mathrm{DWConv}_{3\times3}(x))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pa_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.pa_conv(x).sigmoid()


class Stem(nn.Module):
    """Three 3x3 convolutions to a quarter of the resolution; no norm or activation at the end."""

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = nn.Conv2d(in_chans, hidden, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 3, stride=2, padding=1, bias=False)
        self.pos = PixelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return self.pos(self.conv3(x))


class PatchEmbed(nn.Module):
    """Halve the resolution, widen the channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.pos = PixelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pos(self.norm(self.conv(x)))


class Attention(nn.Module):
    r"""Multi-head attention with fewer keys than queries, and a convolution over heads.

    .. math::
        A = \mathrm{IN}\big(\mathrm{softmax}(\mathrm{Conv}_{1\times1}(d^{-1/2} Q K^\top))\big),
        \qquad \mathrm{out} = W A V

    Keys and values come from a map reduced `sr_ratio` times. With one head there is neither
    the convolution over heads nor the instance norm. A row of the softmax sums to one, so a
    row of the normed map sums to zero: mixed heads output contrasts between positions.

    Args:
        channels: width of the tokens.
        heads: number of heads; divides `channels`.
        sr_ratio: stride of the depthwise convolution that reduces the key map; 1 for none.
    """

    def __init__(self, channels: int, heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr: nn.Module | None = None
        self.transform_conv: nn.Module | None = None
        if sr_ratio > 1:
            self.sr = nn.Conv2d(
                channels, channels, sr_ratio + 1, sr_ratio, sr_ratio // 2, groups=channels
            )
            self.sr_norm = nn.LayerNorm(channels, NORM_EPS)
        if heads > 1:
            self.transform_conv = nn.Conv2d(heads, heads, 1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return tokens (B, height * width, C) after attention to their reduced map."""
        reduced = x
        if self.sr is not None:
            feature_map = x.transpose(1, 2).unflatten(2, (height, width))
            reduced = self.sr_norm(self.sr(feature_map).flatten(2).transpose(1, 2))
        query = self._split(self.q(x))
        key, value = map(self._split, self.kv(reduced).chunk(2, dim=-1))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if self.transform_conv is not None:
            scores = self.transform_conv(scores)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if self.transform_conv is not None:
            # Instance norm over the whole (query, key) map of a head. The variance of that map is
            # of the order of eps, so both its value and float32 matter.
            weights = F.layer_norm(weights, weights.shape[-2:], eps=NORM_EPS)
        out = weights.to(value.dtype) @ value
        return self.proj(out.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual and stochastic depth."""

    def __init__(self, channels: int, heads: int, sr_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, NORM_EPS)
        self.attn = Attention(channels, heads, sr_ratio)
        self.norm2 = nn.LayerNorm(channels, NORM_EPS)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), height, width))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Sequential):
    """Blocks on one resolution, from map to map (timm's feature extractors chain stages)."""

    grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        for block in self:
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(block, tokens, height, width, use_reentrant=False)
            else:
                tokens = block(tokens, height, width)
        return tokens.transpose(1, 2).unflatten(2, (height, width))
