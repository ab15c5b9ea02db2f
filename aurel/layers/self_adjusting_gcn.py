"""Stages of graph convolutions whose graph follows the features: the relation part of SACL."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.drop_path import drop_path
from aurel.layers.graph_convs import (
    EdgeGraphConv,
    GINGraphConv,
    MaxRelativeGraphConv,
    NeighborGraphConv,
    SAGEGraphConv,
    drop_absent,
)
from aurel.layers.linear_norm import LinearNorm
from aurel.layers.masked_norm import zero_absent
from aurel.layers.node_embedding import NodeEmbedding, node_embedding_of
from aurel.ops.arguments import check_choice, check_shape
from aurel.ops.distances import METRICS, Metric
from aurel.ops.knn_graph import knn_graph

Conv = Literal["max_relative", "edge", "gin", "sage"]
Graph = Literal["knn", "self"]

CONVS: dict[Conv, type[MaxRelativeGraphConv | EdgeGraphConv | GINGraphConv | SAGEGraphConv]] = {
    "max_relative": MaxRelativeGraphConv,
    "edge": EdgeGraphConv,
    "gin": GINGraphConv,
    "sage": SAGEGraphConv,
}


class SelfAdjustingGCN(nn.Module):
    r"""Convolve nodes over a graph that is rebuilt from their features before every block.

    .. math::
        G'  &= \operatorname{GELU}(\operatorname{GCN}(G W_{before})) W_{after} + G \\
        G'' &= \operatorname{GELU}(G' W_1) W_2 + G'

    Each of the S stages has blocks of one width and ends in a linear map to the next width. The
    K nearest neighbors are those of the block's input G. SACL (Liu et al., IEEE TAC 2024,
    section 3.4, equations 2 and 3). No code was released; what the paper leaves open follows
    Vision GNN (Han et al., NeurIPS 2022): convolutions d to 2d in four channel groups, batch
    normalization after every linear map of a block, a hidden layer of 4d, a node among its own
    neighbors. These reproduce the parameter counts that the paper prints.

    A message does not show which AU sent it, except by its features, and sources are similar to
    their targets, not informative of them. With BP4D in ``benchmarks/relations.py`` the layer
    closes 2 % of what exact inference gains on covered AUs; `node_embedding` adds identities.

    Args:
        in_channels: width of the nodes; a linear map leads to ``dims[0]`` where it differs.
        out_channels: width of the result; a linear map leads to it where ``dims[-1]`` differs.
        dims: width of each stage.
        depths: blocks of each stage.
        k: number of neighbors.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        conv: "max_relative", "edge", "gin" or "sage".
        groups: channel groups of the graph convolutions.
        graph: "knn"; "self", in which every node is its only source, for ablation; or a fixed
            graph, (N, N) bool, row i True for the sources of i. Parameters are the same.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.
        num_nodes: number N of nodes; required by `node_embedding`, else None for any number.
        drop_path: probability with which the branches of the last block are dropped for a sample
            in training; it grows linearly from 0 at the first block.

    Raises:
        ValueError: an argument has a value that is not among those above.
    """

    neighbors: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 6, 2),
        k: int = 9,
        metric: Metric = "l2",
        conv: Conv = "max_relative",
        groups: int = 4,
        graph: Graph | Tensor = "knn",
        drop_path: float = 0.0,
        *,
        node_embedding: bool = False,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths) or not dims:
            raise ValueError(
                f"dims and depths must have one entry a stage, at least one, got {len(dims)} and "
                f"{len(depths)}"
            )
        check_choice("metric", metric, METRICS)
        check_choice("conv", conv, tuple(CONVS))
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {drop_path}")
        if isinstance(graph, str):
            check_choice("graph", graph, get_args(Graph))
            self.graph: Graph | Literal["fixed"] = graph
            self.register_buffer("neighbors", None)
        else:
            self.graph = "fixed"
            neighbors = _neighbor_list(graph).to(torch.get_default_device())
            self.register_buffer("neighbors", neighbors)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.metric: Metric = metric
        self.drop_path = drop_path
        self.embedding = node_embedding_of(node_embedding, in_channels, num_nodes)

        blocks = sum(depths)
        rates = iter([drop_path * i / max(blocks - 1, 1) for i in range(blocks)])
        self.enter = _linear_if_needed(in_channels, dims[0])
        self.stages = nn.ModuleList(
            nn.ModuleList(
                _Block(dim, CONVS[conv](dim, 2 * dim, k, metric, groups), next(rates))
                for _ in range(depth)
            )
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.widen = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:], strict=False))
        self.leave = _linear_if_needed(dims[-1], out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the parameters and reset the running statistics."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, LinearNorm, GINGraphConv, NodeEmbedding)):
                module.reset_parameters()

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[True]
    ) -> tuple[Tensor, tuple[RelationGraph, ...]]: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, tuple[RelationGraph, ...]]: ...

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, tuple[RelationGraph, ...]]:
        """Return the convolved nodes.

        Args:
            x: (B, N, in_channels).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the graphs as well, one a block.

        Returns:
            (B, N, out_channels), zero for absent nodes; with `return_graph` also the graphs.

        Raises:
            ValueError: k is more than the nodes, or an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", C=self.in_channels)
        x = x if self.embedding is None else self.embedding(x, mask)
        out, lists = self.convolve(x, mask, self.block_neighbors)
        graphs = tuple(RelationGraph(neighbors=neighbors) for neighbors in lists)
        return (out, graphs) if return_graph else out

    if TYPE_CHECKING:
        __call__ = forward

    def convolve(
        self,
        x: Tensor,
        mask: Tensor | None,
        find_neighbors: Callable[[Tensor, Tensor | None], Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` does, and the neighbors of each block, by `find_neighbors`."""
        lists = []
        x = self.enter(zero_absent(x, mask))
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            if index > 0:
                x = self.widen[index - 1](x)
            for block in stage:
                x = zero_absent(x, mask)
                lists.append(find_neighbors(x, mask))
                x = block(x, mask, lists[-1])
        return zero_absent(self.leave(x), mask), lists

    def block_neighbors(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the neighbors, (B, N, K), of a block with input x, (B, N, C)."""
        batch, nodes, _ = x.shape
        if self.graph == "knn":
            return knn_graph(x, self.k, self.metric, mask=mask)
        if self.neighbors is None:
            neighbors = torch.arange(nodes, device=x.device)[:, None]
        else:
            neighbors = self.neighbors
            check_shape("x", x, "B N C", N=len(neighbors))
        return drop_absent(neighbors.expand(batch, -1, -1), mask)

    def listen(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return `block_neighbors`, of which this is the former name."""
        warnings.warn("listen is called block_neighbors", DeprecationWarning, stacklevel=2)
        return self.block_neighbors(x, mask)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, k={self.k}, metric={self.metric!r}, "
            f"graph={self.graph!r}"
        )


class _Block(nn.Module):
    """Graph convolution and feed-forward network, each with a residual: equations 2 and 3."""

    def __init__(self, dim: int, conv: NeighborGraphConv, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.before = LinearNorm(dim, dim)
        self.conv = conv
        self.after = LinearNorm(2 * dim, dim)
        self.expand = LinearNorm(dim, 4 * dim)
        self.reduce = LinearNorm(4 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None, neighbors: Tensor) -> Tensor:
        h = self.conv(self.before(x, mask), mask, neighbors=neighbors)  # ends in GELU
        x = x + drop_path(self.after(h, mask), self.drop_path, self.training)
        h = F.gelu(self.expand(x, mask))
        return x + drop_path(self.reduce(h, mask), self.drop_path, self.training)


def _linear_if_needed(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Identity() if in_channels == out_channels else nn.Linear(in_channels, out_channels)


def _neighbor_list(graph: Tensor) -> Tensor:
    """Return the columns that are True in each row of `graph`, (N, K), -1 in empty slots."""
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or graph.dtype != torch.bool:
        raise ValueError(
            f"graph must be 'knn', 'self' or bool (N, N), got {graph.dtype} {tuple(graph.shape)}"
        )
    slots = max(1, int(graph.sum(1).max())) if len(graph) else 1
    columns = (~graph).sort(dim=1, stable=True).indices[:, :slots]
    return columns.where(graph.gather(1, columns), -1)
