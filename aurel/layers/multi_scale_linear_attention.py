"""Linear attention between all positions of a feature map, at several scales (EfficientViT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.ops.arguments import check_shape
from aurel.ops.precision import without_autocast

SCALES = (3, 5)
HEAD_DIM = 16


class MultiScaleLinearAttention(nn.Module):
    r"""Attend from every position to all others, with a kernel in place of softmax.

    .. math::
        o_i = \frac{\phi(q_i) \sum_j \phi(k_j)^\top v_j}{\phi(q_i) \sum_j \phi(k_j)^\top}, \qquad
        y = x + \mathrm{BN}(W [o^{(1)}; o^{(3)}; o^{(5)}]), \qquad \phi = \mathrm{ReLU}

    in heads of 16 channels. :math:`q^{(1)}, k^{(1)}, v^{(1)}` are linear in x; those of scale 3 and
    5 are computed from them by a depthwise convolution of that size and a linear map within the
    head. No biases.

    Args:
        channels: channels C of the map, a multiple of 16.

    Raises:
        ValueError: 16 does not divide `channels`.

    Source: Cai et al., EfficientViT, arXiv:2205.14756, section 3.1, which uses one scale beside 1.
    MACG (Li et al., 2025, section 4.4.1) compares its attention to this one and names scales 3 and
    5; that it replaces the attention of MACG in the same position, and the residual, are this
    library's reading.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1 or channels % HEAD_DIM:
            raise ValueError(f"channels must be a multiple of {HEAD_DIM}, got {channels}")
        self.channels = channels
        heads, width = channels // HEAD_DIM, 3 * channels
        self.qkv = nn.Conv2d(channels, width, 1, bias=False)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False),
                nn.Conv2d(width, width, 1, groups=3 * heads, bias=False),
            )
            for k in SCALES
        )
        self.project = nn.Conv2d((1 + len(SCALES)) * channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights as `nn.Conv2d` does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) for a map x (B, C, H, W)."""
        check_shape("x", x, "B C H W", C=self.channels)
        qkv = self.qkv(x)
        qkv = torch.cat((qkv, *(scale(qkv) for scale in self.scales)), dim=1)
        query, key, value = qkv.flatten(2).unflatten(1, (-1, 3, HEAD_DIM)).unbind(2)
        out = _linear_attention(query, key, value).to(qkv.dtype)
        return x + self.norm(self.project(out.flatten(1, 2).unflatten(2, x.shape[2:])))

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}"


def _linear_attention(query: Tensor, key: Tensor, value: Tensor, eps: float = 1e-5) -> Tensor:
    """Return (B, heads, E, positions), like each argument; float32 at least."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query):
        query, key, value = (tensor.to(dtype) for tensor in (query.relu(), key.relu(), value))
        sums = F.pad(value, (0, 0, 0, 1), value=1.0) @ key.mT @ query
        return sums[:, :, :-1] / (sums[:, :, -1:] + eps)
