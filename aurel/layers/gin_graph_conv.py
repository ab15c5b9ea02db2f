"""Graph isomorphism network convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.linear_norm import LinearNorm
from aurel.layers.masked_norm import zero_absent
from aurel.layers.neighborhood import finish, given_or_nearest
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class GINGraphConv(nn.Module):
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
        metric: str = "l2",
        groups: int = 4,
        loop: bool = True,
    ) -> None:
        super().__init__()
        self.k = k
        self.metric = metric
        self.loop = loop
        self.epsilon = nn.Parameter(torch.empty(()))
        self.project = LinearNorm(in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        nn.init.zeros_(self.epsilon)
        self.project.reset_parameters()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_graph: bool = False,
        neighbors: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Convolve.

        Args:
            x: (B, N, C).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the graph as well.
            neighbors: (B, N, K) int64, -1 for none: a graph to use instead of the nearest nodes.

        Returns:
            (B, N, out_channels), zero for absent nodes.

        Raises:
            ValueError: k is more than the nodes, or an argument has the wrong shape or dtype.
        """
        x = zero_absent(x, mask)
        neighbors = given_or_nearest(neighbors, x, self.k, self.metric, self.loop, mask)
        total = (1 + self.epsilon) * x + neighbor_aggregate(x, neighbors, "sum")
        return finish(F.gelu(self.project(total, mask)), neighbors, mask, return_graph)

    def extra_repr(self) -> str:
        return f"k={self.k}, metric={self.metric!r}, loop={self.loop}"
