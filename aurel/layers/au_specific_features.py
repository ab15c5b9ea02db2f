"""A separate projection of the face's tokens for each action unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.layers.masked_norm import MaskedBatchNorm, batch_norm, zero_empty_graphs
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_device, check_mask, check_shape


class AUSpecificFeatures(nn.Module):
    r"""Project the tokens separately for every node (the authors' AU feature generator).

    .. math::
        u_n = \mathrm{ReLU}(\mathrm{BN}_n(W_n t + b_n)), \qquad n = 1 \dots N

    The N projections are one matrix product and the N normalizations one normalization over
    N C' channels. The node vector is the mean over tokens: ``layer(tokens).mean(2)``.

    Args:
        in_channels: width C of the tokens.
        out_channels: width C' of a node's tokens.
        num_nodes: number N of nodes.

    Source: section 3.1 of Luo et al., IJCAI 2022 (ME-GraphAU, AFG).
    """

    def __init__(self, in_channels: int, out_channels: int, num_nodes: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_nodes = num_nodes
        self.linear = nn.Linear(in_channels, num_nodes * out_channels)
        self.norm = MaskedBatchNorm(num_nodes * out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights of variance 2 / C'."""
        self.linear.reset_parameters()
        nn.init.normal_(self.linear.weight, std=(2.0 / self.out_channels) ** 0.5)
        self.norm.reset_parameters()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the tokens of every node.

        Args:
            tokens: (B, D, C).
            mask: (B, N) bool, True where the node exists; statistics are over these images.

        Returns:
            (B, N, D, C'), zero for absent nodes; in memory the token comes before the node.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("tokens", tokens, "B D C", C=self.in_channels)
        if mask is not None:
            check_shape("mask", mask, "B N", B=tokens.shape[0], N=self.num_nodes)
            check_mask(mask, mask)
            check_device("mask", mask, tokens)
            tokens = zero_empty_graphs(tokens, mask)
        out = self.linear(tokens)
        present = None
        if mask is not None:
            present = mask.repeat_interleave(self.out_channels, 1)[:, None].expand_as(out)
        # In place, unless a hook may have kept what the norm returned.
        out = batch_norm(self.norm, out, present)
        out = F.relu(out, inplace=is_plain(self.norm, MaskedBatchNorm))
        out = out.unflatten(2, (self.num_nodes, self.out_channels))
        if mask is not None:
            out = out.masked_fill(~mask[:, None, :, None], 0)
        return out.transpose(1, 2)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, num_nodes={self.num_nodes}"
