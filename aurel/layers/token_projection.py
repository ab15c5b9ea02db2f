"""Linear, batch normalization and ReLU over tokens: the papers' "linear block"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape


class TokenProjection(nn.Module):
    r"""Project tokens to another width.

    .. math::
        y = \mathrm{ReLU}(\mathrm{BN}(W t + b))

    with the normalization's statistics over images and tokens.

    Args:
        in_channels: width C of the tokens.
        out_channels: width C' of the result.

    Source: the `LinearBlock` in the code of ME-GraphAU (Luo et al., IJCAI 2022), MDHR and MACG.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = nn.BatchNorm1d(out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights of variance 2 / C'."""
        self.linear.reset_parameters()
        nn.init.normal_(self.linear.weight, std=(2.0 / self.out_channels) ** 0.5)
        self.norm.reset_parameters()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, D, C') for tokens (B, D, C)."""
        check_shape("tokens", tokens, "B D C", C=self.in_channels)
        out = self.norm(self.linear(tokens).flatten(0, 1))
        # In place, unless a hook may have kept what the norm returned.
        out = F.relu(out, inplace=is_plain(self.norm, nn.BatchNorm1d))
        return out.unflatten(0, tokens.shape[:2])

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"
