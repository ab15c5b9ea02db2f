"""Graph convolutions over neighbor lists: max-relative, edge, GIN and GraphSAGE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.grapher_convs import gather_neighbors
from aurel.layers.linear_norm import LinearNorm, grouped_linear, interleave
from aurel.layers.masked_norm import batch_norm, zero_absent
from aurel.layers.node_embedding import NodeEmbedding, node_embedding_of
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape
from aurel.ops.distances import Metric
from aurel.ops.knn_graph import knn_graph
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class NeighborGraphConv(nn.Module):
    """Base of the graph convolutions over the k nearest nodes, or over lists of the caller.

    Args:
        in_channels: width C of the nodes.
        out_channels: width of the result.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        groups: channel groups of the linear maps.
        loop: a node may be its own neighbor.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.
        num_nodes: number N of nodes; required by `node_embedding`, else None for any number.

    Raises:
        ValueError: `groups` does not divide the widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int,
        metric: Metric = "l2",
        groups: int = 4,
        loop: bool = True,
        *,
        node_embedding: bool = False,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.k = k
        self.metric: Metric = metric
        self.loop = loop
        self._add_maps(out_channels, groups)
        self.embedding = node_embedding_of(node_embedding, in_channels, num_nodes)
        self.reset_parameters()

    def _add_maps(self, out_channels: int, groups: int) -> None:
        """Create the linear maps: here one, of a node beside the aggregate of its neighbors."""
        self.project = LinearNorm(2 * self.in_channels, out_channels, groups)

    def reset_parameters(self) -> None:
        """Initialize the parameters and reset the running statistics, as `LinearNorm` does."""
        for linear in self.children():
            assert isinstance(linear, (LinearNorm, NodeEmbedding))
            linear.reset_parameters()

    @overload
    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        neighbors: Tensor | None = None,
        *,
        return_graph: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        neighbors: Tensor | None = None,
        *,
        return_graph: Literal[True],
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        neighbors: Tensor | None = None,
        *,
        return_graph: bool,
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        neighbors: Tensor | None = None,
        *,
        return_graph: bool = False,
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Return the convolved nodes.

        Args:
            x: (B, N, C).
            mask: (B, N) bool, True where the node exists.
            neighbors: (B, N, K) int64, -1 for none: lists to use instead of the nearest nodes.
            return_graph: return the graph as well.

        Returns:
            (B, N, out_channels), zero for absent nodes; with `return_graph` also the graph.

        Raises:
            ValueError: k is more than the nodes, or an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", C=self.in_channels)
        x = zero_absent(x, mask) if self.embedding is None else self.embedding(x, mask)
        if neighbors is not None:
            check_shape("neighbors", neighbors, "B N K", B=x.shape[0], N=x.shape[1])
            if neighbors.dtype != torch.int64:
                raise ValueError(f"neighbors must be int64, got {neighbors.dtype}")
            neighbors = drop_absent(neighbors, mask)
        out, neighbors = self.convolve(x, mask, neighbors)
        out = zero_absent(out, mask)
        return (out, RelationGraph(neighbors=neighbors)) if return_graph else out

    if TYPE_CHECKING:
        __call__ = forward

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return new nodes, which may be anything where absent, and the neighbor lists.

        `x` is zero where absent, and `neighbors`, if it is not None, lists no absent node.
        """
        raise NotImplementedError

    def nearest(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the k nearest neighbors of every node, (B, N, K)."""
        return knn_graph(x, self.k, self.metric, loop=self.loop, mask=mask)

    def extra_repr(self) -> str:
        return f"k={self.k}, metric={self.metric!r}, loop={self.loop}"


class MaxRelativeGraphConv(NeighborGraphConv):
    r"""Map every node together with the largest difference of its neighbors in each channel.

    .. math:: y_i = \operatorname{GELU}(\operatorname{BN}(W [x_i ; \max_j (x_j - x_i)]))

    over the k nearest nodes j of i. The two halves are interleaved channel by channel before
    the grouped map, as in Vision GNN (Han et al., NeurIPS 2022), so that weights of its 1x1
    convolution serve here. Batch statistics are over present nodes. Used by SACL (Liu et al.,
    IEEE TAC 2024, section 3.4), which states neither groups nor normalization.

    Args: those of `NeighborGraphConv`.
    """

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            relative, neighbors = knn_max_relative(
                x, self.k, self.metric, loop=self.loop, mask=mask
            )
        else:
            isolated = (neighbors < 0).all(2, keepdim=True)
            relative = (neighbor_aggregate(x, neighbors, "max") - x).masked_fill(isolated, 0)
        return F.gelu(self.project(interleave(x, relative), mask)), neighbors


class EdgeGraphConv(NeighborGraphConv):
    r"""Map every edge, and keep the largest of a node's edges in each channel.

    .. math:: y_i = \max_j \operatorname{GELU}(\operatorname{BN}(W [x_i ; x_j - x_i]))

    over the k nearest nodes j of i; batch statistics are over edges. Wang et al., ACM TOG 2019,
    in the form of Vision GNN (Han et al., NeurIPS 2022), except that the halves before W are
    interleaved here, so that each channel group has channels of both.

    Args: those of `NeighborGraphConv`.
    """

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
        target = grouped_linear(x, center - difference, self.project.bias, groups)
        source = grouped_linear(x, difference.contiguous(), None, groups)
        return target[:, :, None] + gather_neighbors(source, neighbors)


class GINGraphConv(NeighborGraphConv):
    r"""Map the weighted sum of every node and its neighbors (graph isomorphism network).

    .. math:: y_i = \operatorname{GELU}(\operatorname{BN}(W ((1 + \epsilon) x_i + \sum_j x_j)))

    over the k nearest nodes j of i, with a learned :math:`\epsilon` that starts at 0. Xu et al.,
    ICLR 2019, in the form of Vision GNN (Han et al., NeurIPS 2022).

    Args: those of `NeighborGraphConv`.
    """

    def _add_maps(self, out_channels: int, groups: int) -> None:
        self.epsilon = nn.Parameter(torch.empty(()))
        self.project = LinearNorm(self.in_channels, out_channels, groups)

    def reset_parameters(self) -> None:
        """Initialize the parameters and reset the running statistics; epsilon is 0."""
        nn.init.zeros_(self.epsilon)
        super().reset_parameters()

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            neighbors = self.nearest(x, mask)
        total = (1 + self.epsilon) * x + neighbor_aggregate(x, neighbors, "sum")
        return F.gelu(self.project(total, mask)), neighbors


class SAGEGraphConv(NeighborGraphConv):
    r"""Map every node together with the largest message of its neighbors (GraphSAGE).

    .. math:: y_i = \sigma(W_2 [x_i ; \max_j \sigma(W_1 x_j)])

    over the k nearest nodes j of i, with :math:`\sigma` batch normalization, then GELU. Hamilton
    et al., NeurIPS 2017, in the form of Vision GNN (Han et al., NeurIPS 2022), with two
    differences: messages are mapped and normalized once a source, not once an edge, and the
    halves before :math:`W_2` are interleaved, so that each channel group has channels of both.

    Args: those of `NeighborGraphConv`.
    """

    def _add_maps(self, out_channels: int, groups: int) -> None:
        self.message = LinearNorm(self.in_channels, self.in_channels, groups)
        self.project = LinearNorm(2 * self.in_channels, out_channels, groups)

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            neighbors = self.nearest(x, mask)
        largest = neighbor_aggregate(F.gelu(self.message(x, mask)), neighbors, "max")
        return F.gelu(self.project(interleave(x, largest), mask)), neighbors


def drop_absent(neighbors: Tensor, mask: Tensor | None) -> Tensor:
    """Return `neighbors`, (B, N, K), with -1 where either end of the edge is absent."""
    if mask is None:
        return neighbors
    samples = torch.arange(mask.shape[0], device=mask.device)[:, None, None]
    exists = mask[samples, neighbors.clamp_min(0)] & (neighbors >= 0) & mask[:, :, None]
    return neighbors.where(exists, -1)


def _first_maximum(edges: Tensor, exists: Tensor | None) -> Tensor:
    """Return the maxima over K of (B, N, K, C); the gradient goes to the first that attains it."""
    if exists is None:
        return edges.max(2).values
    largest = edges.masked_fill(~exists.unsqueeze(-1), -torch.inf).max(2).values
    return largest.masked_fill(~exists.any(2, keepdim=True), 0)
