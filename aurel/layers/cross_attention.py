"""Attention from nodes to the tokens of a face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.layers.masked_norm import zero_absent, zero_empty_graphs
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape


class CrossAttention(nn.Module):
    r"""Replace each node by its attention-weighted mean of the tokens t of a face.

    .. math::
        y_n = \mathrm{softmax}\big(q(x_n)\, k(t)^\top / \sqrt{C/2}\big)\, v(t)

    with linear maps q and k to C/2 channels, and v to C. There are far more tokens than nodes, so
    the maps of tokens are applied to the nodes instead: :math:`q(x_n)\, k(t)^\top = (q(x_n) W_k)\,
    t^\top`, and as a row of weights sums to one, :math:`v` may follow the average. The numbers are
    the same. k has no bias: it would add the same to a whole row of scores.

    Args:
        channels: width C of nodes and tokens, even.

    Raises:
        ValueError: `channels` is odd.

    Source: the cross-attention of ME-GraphAU (Luo et al., IJCAI 2022, section 3.2), to which the
    ablation of the fusion in table 9 of SACL (Liu & Yuan, IEEE TAC 2024) is "similar". SACL does
    not say which attends to which; here its AU nodes attend to its multi-scale tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        self.channels = channels
        self.scale = (channels // 2) ** -0.5
        self.query = nn.Linear(channels, channels // 2)
        self.key = nn.Linear(channels, channels // 2, bias=False)
        self.value = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as ME-GraphAU's authors do: normal weights of variance 2 / output width."""
        for module in (self.query, self.key, self.value):
            module.reset_parameters()
            nn.init.normal_(module.weight, std=(2.0 / module.out_features) ** 0.5)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the attended tokens of every node.

        Args:
            x: (B, N, C), the nodes.
            tokens: (B, D, C), the tokens of the face.
            mask: (B, N) bool, True where the node exists.

        Returns:
            (B, N, C), zero for absent nodes.

        Raises:
            ValueError: a shape does not fit.
        """
        check_shape("x", x, "B N C", C=self.channels)
        check_shape("tokens", tokens, "B D C", B=x.shape[0], C=self.channels)
        query = self.query(zero_absent(x, mask)) * self.scale
        tokens = zero_empty_graphs(tokens, mask)
        if is_plain(self.key, nn.Linear):
            scores = (query @ self.key.weight) @ tokens.mT
        else:
            scores = query @ self.key(tokens).mT
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
        return zero_absent(self.value(weights.to(tokens.dtype) @ tokens), mask)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}"
