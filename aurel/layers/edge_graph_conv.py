"""Edge convolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.layers.grapher_convs import gather_neighbors
from aurel.layers.linear_norm import LinearNorm, grouped_linear, interleave
from aurel.layers.masked_norm import batch_norm
from aurel.layers.neighborhood import Metric, NeighborGraphConv
from aurel.layers.plain import is_plain


class EdgeGraphConv(NeighborGraphConv):
    r"""Map every edge, and keep the largest of a node's edges in each channel.

    .. math:: y_i = \max_j \operatorname{GELU}(\operatorname{BN}(W [x_i ; x_j - x_i]))

    over the k nearest nodes j of i; batch statistics are over edges. Wang et al., ACM TOG 2019,
    in the form of Vision GNN (Han et al., NeurIPS 2022), except that the halves before W are
    interleaved here, so that each channel group sees both.

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
        self.project = LinearNorm(2 * in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        self.project.reset_parameters()

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        all_exist = mask is None and neighbors is None
        if neighbors is None:
            neighbors = self.nearest(x, mask)
        exists = None if all_exist else neighbors >= 0
        rows = neighbors.clamp_min(0)
        if is_plain(self.project, LinearNorm):
            edges = batch_norm(self.project.norm, self._edges(x, rows), exists)
        else:
            center = x.unsqueeze(2).expand(-1, -1, rows.shape[2], -1)
            edges = self.project(interleave(center, gather_neighbors(x, rows) - center), exists)
        return _first_maximum(F.gelu(edges), exists), neighbors

    def _edges(self, x: Tensor, neighbors: Tensor) -> Tensor:
        """Return W [x_i ; x_j - x_i] + b, (B, N, K, O), from maps of nodes, K times fewer."""
        weight, groups = self.project.weight, self.project.groups
        center, difference = weight[:, ::2], weight[:, 1::2]
        own = grouped_linear(x, center - difference, self.project.bias, groups)
        other = grouped_linear(x, difference.contiguous(), None, groups)
        return own[:, :, None] + gather_neighbors(other, neighbors)


def _first_maximum(edges: Tensor, exists: Tensor | None) -> Tensor:
    """Return the maxima over K of (B, N, K, C); the gradient goes to the first that attains it."""
    if exists is None:
        return edges.max(2).values
    largest = edges.masked_fill(~exists.unsqueeze(-1), -torch.inf).max(2).values
    return largest.masked_fill(~exists.any(2, keepdim=True), 0)
