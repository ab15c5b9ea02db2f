"""One private projection of the face's tokens for each action unit."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.ops.arguments import check_shape


class AUSpecificFeatures(nn.Module):
    r"""Give every node its own view of the tokens (the authors' AU feature generator).

    .. math::
        u_n = \mathrm{ReLU}(\mathrm{BN}_n(W_n t + b_n)), \qquad n = 1 \dots N

    The N projections are one matrix product and the N normalisations one normalisation over
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
        self.norm = nn.BatchNorm1d(num_nodes * out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as the authors do: normal, variance 2 / C'."""
        self.linear.reset_parameters()
        nn.init.normal_(self.linear.weight, std=(2.0 / self.out_channels) ** 0.5)
        self.norm.reset_parameters()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, N, D, C') for tokens (B, D, C); in memory the token comes before the node."""
        check_shape("tokens", tokens, "B D C", C=self.in_channels)
        batch, length, _ = tokens.shape
        out = self.norm(self.linear(tokens).flatten(0, 1))
        out = F.relu(out, inplace=True)
        return out.view(batch, length, self.num_nodes, self.out_channels).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, num_nodes={self.num_nodes}"
