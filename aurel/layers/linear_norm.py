"""A linear map of node features in groups of channels, and batch normalization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.masked_norm import MaskedBatchNorm, batch_norm


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return (..., O): each of `groups` runs of channels mapped by its rows of `weight`.

    Args:
        x: (..., I).
        weight: (O, I / groups), as a 1x1 grouped convolution holds it.
        bias: (O,) or None.
        groups: divides I and O.
    """
    if groups == 1:
        return F.linear(x, weight, bias)
    inputs = x.reshape(-1, groups, weight.shape[1]).transpose(0, 1)
    outputs = torch.bmm(inputs, weight.view(groups, -1, weight.shape[1]).mT)
    out = outputs.transpose(0, 1).reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Return (..., 2C) with channels first_0, second_0, first_1, second_1, ...

    So every group of a grouped map has the same channels of both as input.
    """
    return torch.stack((first, second), dim=-1).flatten(-2)


class LinearNorm(nn.Module):
    r"""Grouped linear map and batch normalization over all present nodes.

    .. math:: y = \operatorname{BN}(W x + b)

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        groups: channel groups, as in a 1x1 grouped convolution.

    Raises:
        ValueError: `groups` does not divide both widths.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide the widths {in_channels} and {out_channels}, got {groups}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.norm = MaskedBatchNorm(out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the map as `nn.Linear` does, the normalization to the identity."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.bias, -bound, bound)
        self.norm.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (..., O) for x (..., I), finite where `mask`, (...) bool, is False."""
        return batch_norm(self.norm, grouped_linear(x, self.weight, self.bias, self.groups), mask)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
