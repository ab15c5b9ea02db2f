"""Features of a map whose columns are mixed by relations that differ between channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.token_projection import TokenProjection
from aurel.ops.arguments import check_shape

REDUCTION = 8


class ChannelTopology(nn.Module):
    r"""Mix the columns of a feature map by a relation for each channel, and project it to nodes.

    .. math::
        q = \mathrm{mean}_t\, W_q x, \qquad k = \mathrm{mean}_t\, W_k x, \qquad
        R_{uv} = W_r \tanh(q_u - k_v) + b_r \\
        E_{ctu} = \sum_v R_{cuv}\, (W_v x)_{ctv}, \qquad
        y_n = \mathrm{ReLU}(\mathrm{BN}_n(W_n\, \mathrm{mean}_{tu} E + b_n))

    for rows t, columns u and v, channels c. Of E only the mean is used, and the sums commute:

    .. math::
        \mathrm{mean}_{tu} E_c = \sum_v (\mathrm{mean}_u R_{cuv}) (W_v\, \mathrm{mean}_t x)_{cv}

    so the layer computes with W columns where the definition has H W entries and W W relations a
    channel. The numbers are the same; they do not depend on the order of rows.

    Args:
        channels: channels C of the map, at least 8; q and k have C / 8.
        num_nodes: number N of nodes.
        shared: one projection :math:`W_n` for all nodes, as in the authors' code: then all nodes
            get the same vector, which is computed once, and running statistics advance as in the N
            passes of their code. False for N projections, as in the text (:math:`\varphi_i`).

    Raises:
        ValueError: fewer than 8 channels.

    Source: section 3.2.1 of MACG (Li et al., 2025), equations 10 to 12. Equation 11 subtracts where
    text and code multiply and sum; its factor :math:`\lambda` is 1 in the code.
    """

    def __init__(self, channels: int, num_nodes: int, shared: bool = True) -> None:
        super().__init__()
        if channels < REDUCTION:
            raise ValueError(f"channels must be at least {REDUCTION}, got {channels}")
        self.channels = channels
        self.num_nodes = num_nodes
        self.shared = shared
        reduced = channels // REDUCTION
        self.query = nn.Linear(channels, reduced)
        self.key = nn.Linear(channels, reduced)
        self.value = nn.Linear(channels, channels)
        self.relation = nn.Linear(reduced, channels)
        self.view: TokenProjection | AUSpecificFeatures
        if shared:
            self.view = TokenProjection(channels, channels)
            # n steps of a tenth to one mean are one step of 1 - 0.9^n.
            self.view.norm.momentum = 1 - 0.9**num_nodes
        else:
            self.view = AUSpecificFeatures(channels, channels, num_nodes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights of variance 2 / output width, biases 0."""
        for linear in (self.query, self.key, self.value, self.relation):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
        self.view.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, N, C) for a map x (B, C, H, W)."""
        check_shape("x", x, "B C H W", C=self.channels)
        columns = x.mean(2).mT
        pairs = self.query(columns).unsqueeze(2) - self.key(columns).unsqueeze(1)
        relation = self.relation(pairs.tanh().mean(1))
        token = (relation * self.value(columns)).sum(1, keepdim=True)
        if not self.shared:
            return self.view(token).squeeze(2)
        if self.training:
            counter = self.view.norm.num_batches_tracked
            assert counter is not None
            counter.add_(self.num_nodes - 1)
        return self.view(token).expand(-1, self.num_nodes, -1)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}, shared={self.shared}"
