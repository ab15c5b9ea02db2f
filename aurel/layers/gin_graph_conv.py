"""Graph isomorphism network convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.linear_norm import LinearNorm
from aurel.layers.neighborhood import Metric, NeighborGraphConv
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class GINGraphConv(NeighborGraphConv):
    r"""Add up every node and its neighbours.

    .. math:: y_i = \operatorname{GELU}(\operatorname{BN}(W ((1 + \epsilon) x_i + \sum_j x_j)))

    over the k nearest nodes j of i, with a learned :math:`\epsilon` that starts at 0. Xu et al.,
    ICLR 2019, in the form of Vision GNN (Han et al., NeurIPS 2022).

    Args:
        in_channels: width C of the nodes.
        out_channels: width of the result.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        groups: channel groups of W.
        loop: a node may be its own neighbour.

    Raises:
        ValueError: `groups` does not divide both widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int,
        metric: Metric = "l2",
        groups: int = 4,
        loop: bool = True,
    ) -> None:
        super().__init__(in_channels, k, metric, loop)
        self.epsilon = nn.Parameter(torch.empty(()))
        self.project = LinearNorm(in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        nn.init.zeros_(self.epsilon)
        self.project.reset_parameters()

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            neighbors = self.nearest(x, mask)
        total = (1 + self.epsilon) * x + neighbor_aggregate(x, neighbors, "sum")
        return F.gelu(self.project(total, mask)), neighbors
