"""Stages of graph convolutions whose graph follows the features: the relation part of SACL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.edge_graph_conv import EdgeGraphConv
from aurel.layers.gin_graph_conv import GINGraphConv
from aurel.layers.linear_norm import LinearNorm
from aurel.layers.masked_norm import zero_absent
from aurel.layers.max_relative_graph_conv import MaxRelativeGraphConv
from aurel.layers.neighborhood import Metric, NeighborGraphConv, drop_absent
from aurel.layers.sage_graph_conv import SAGEGraphConv
from aurel.ops.arguments import check_choice, check_shape
from aurel.ops.distances import METRICS
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
    K nearest neighbours are those of the block's input G. SACL (Liu et al., IEEE TAC 2024,
    section 3.4, equations 2 and 3). No code was released; what the paper leaves open follows
    Vision GNN (Han et al., NeurIPS 2022): convolutions d to 2d in four channel groups, batch
    normalisation after every linear map of a block, a hidden layer of 4d, a node among its own
    neighbours. These reproduce the parameter counts that the paper prints.

    Args:
        in_channels: width of the nodes; a linear map leads to ``dims[0]`` where it differs.
        out_channels: width of the result; a linear map leads to it where ``dims[-1]`` differs.
        dims: width of each stage.
        depths: blocks of each stage.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        conv: "max_relative", "edge", "gin" or "sage".
        groups: channel groups of the graph convolutions.
        graph: "knn"; "self", in which every node listens to itself alone, for ablation; or a
            fixed graph, (N, N) bool, row i True where i listens. Parameters are the same.
        drop_path: probability with which the last block's branches are dropped from a sample in
            training; it grows linearly from 0 at the first block.

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
    ) -> None:
        super().__init__()
        if len(dims) != len(depths) or not dims:
            raise ValueError(
                f"dims and depths must name one or more stages alike, got {len(dims)} and "
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
            self.register_buffer("neighbors", _neighbor_list(graph))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.metric: Metric = metric
        self.drop_path = drop_path

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
        """Draw new parameters and forget the running statistics."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, LinearNorm, GINGraphConv)):
                module.reset_parameters()

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_graph: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[True]
    ) -> tuple[Tensor, tuple[RelationGraph, ...]]: ...

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, tuple[RelationGraph, ...]]:
        """Convolve.

        Args:
            x: (B, N, in_channels).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the graphs as well, one a block.

        Returns:
            (B, N, out_channels), zero for absent nodes.

        Raises:
            ValueError: k is more than the nodes, or an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", C=self.in_channels)
        out, lists = self.convolve(x, mask, self.listen)
        graphs = tuple(RelationGraph(neighbors=neighbors) for neighbors in lists)
        return (out, graphs) if return_graph else out

    if TYPE_CHECKING:
        __call__ = forward

    def convolve(
        self,
        x: Tensor,
        mask: Tensor | None,
        listen: Callable[[Tensor, Tensor | None], Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` does, and each block's neighbours, which `listen` finds."""
        lists = []
        x = self.enter(zero_absent(x, mask))
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            if index > 0:
                x = self.widen[index - 1](x)
            for block in stage:
                x = zero_absent(x, mask)
                lists.append(listen(x, mask))
                x = block(x, mask, lists[-1])
        return zero_absent(self.leave(x), mask), lists

    def listen(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the neighbours of a block with input x, (B, N, K)."""
        batch, nodes, _ = x.shape
        if self.graph == "knn":
            return knn_graph(x, self.k, self.metric, mask=mask)
        if self.neighbors is None:
            neighbors = torch.arange(nodes, device=x.device)[:, None]
        else:
            neighbors = self.neighbors
            check_shape("x", x, "B N C", N=len(neighbors))
        return drop_absent(neighbors.expand(batch, -1, -1), mask)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, k={self.k}, metric={self.metric!r}, "
            f"graph={self.graph!r}"
        )


class _Block(nn.Module):
    """Equations 2 and 3: a graph convolution and a feed-forward network, each with a residual."""

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
        x = x + self._drop(self.after(h, mask))
        h = F.gelu(self.expand(x, mask))
        return x + self._drop(self.reduce(h, mask))

    def _drop(self, x: Tensor) -> Tensor:
        """Drop the branch from random samples, and scale it up in the others."""
        if not self.training or self.drop_path == 0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_path
        return x * (kept / (1 - self.drop_path)).to(x.dtype)


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
