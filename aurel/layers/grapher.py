"""The graph module of Vision GNN, on feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.drop_path import drop_path
from aurel.layers.grapher_convs import EdgeConv, GINConv, MaxRelativeConv, SAGEConv
from aurel.layers.relative_positions import relative_positions, resample_positions
from aurel.ops.arguments import check_choice, check_shape
from aurel.ops.distances import at_least_float32
from aurel.ops.knn_graph import knn_graph

GrapherConv = Literal["mr", "edge", "sage", "gin"]

CONVS: dict[GrapherConv, type[nn.Module]] = {
    "mr": MaxRelativeConv,
    "edge": EdgeConv,
    "sage": SAGEConv,
    "gin": GINConv,
}


class Grapher(nn.Module):
    r"""Convolve the cells of a map over a graph of their features.

    .. math::
        X' &= \operatorname{BN}(X W_1), \qquad
        S = \operatorname{pool}_r(X'), \qquad
        \mathcal{N}(i) = \operatorname{arg\,min}_j^{(k, d)}
            \left| \frac{x'_i}{|x'_i|} - \frac{s_j}{|s_j|} \right|^2 + b_{ij} \\
        Y &= \operatorname{BN}(\operatorname{GCN}(X', S, \mathcal{N}) W_2) + X

    Every d-th of the k d nearest sources is a neighbor. The sources are the cells themselves, a
    cell among its own neighbors, or with r > 1 the means of r x r cells. No gradient flows through
    the choice. Han et al., "Vision GNN: An Image is Worth Graph of Nodes", NeurIPS 2022; names and
    shapes of parameters are those of the released code.

    Args:
        channels: C, a multiple of 4, the number of channel groups of the graph convolution.
        k: number of neighbors.
        conv: "mr" (max-relative), "edge", "sage" or "gin".
        dilation: d; less for a map with fewer than k d sources.
        reduction: r.
        position_size: rows and columns of the map whose relative positions b are added to the
            distances; other maps get them resampled. None for b = 0.
        drop_path: probability with which the branch added to X is dropped for a sample in training.

    Raises:
        ValueError: an argument has a value that is not among those above.
    """

    relative_pos: Tensor | None

    def __init__(
        self,
        channels: int,
        k: int = 9,
        conv: GrapherConv = "mr",
        *,
        dilation: int = 1,
        reduction: int = 1,
        position_size: tuple[int, int] | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("conv", conv, tuple(CONVS))
        if channels < 4 or channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {channels}")
        for name, value in {"k": k, "dilation": dilation, "reduction": reduction}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {drop_path}")
        self.channels = channels
        self.conv = conv
        self.drop_path = drop_path
        self.fc1 = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.graph_conv = _DynamicGraphConv(CONVS[conv](channels), k, dilation, reduction)
        self.fc2 = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels))
        positions = None
        if position_size is not None:
            positions = relative_positions(channels, position_size, reduction)
        self.register_buffer("relative_pos", positions)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights after He et al., biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, GINConv):
                nn.init.zeros_(module.eps)

    @overload
    def forward(self, x: Tensor, *, return_graph: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, *, return_graph: Literal[True]
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self, x: Tensor, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self, x: Tensor, *, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Return the convolved map.

        Args:
            x: (B, C, H, W).
            return_graph: return the graph as well. Its neighbors (B, H W, k) are cells, row by
                row; with a reduction, those of the pooled map.

        Returns:
            (B, C, H, W); with `return_graph` also the graph.

        Raises:
            ValueError: k is more than the sources, or x has the wrong shape.
        """
        check_shape("x", x, "B C H W", C=self.channels)
        out, neighbors = self.graph_conv(self.fc1(x), self.relative_pos)
        out = x + drop_path(self.fc2(out), self.drop_path, self.training)
        return (out, RelationGraph(neighbors=neighbors)) if return_graph else out

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        positions = self.relative_pos is not None
        return f"{self.channels}, conv={self.conv!r}, positions={positions}"


class _DynamicGraphConv(nn.Module):
    """Graph convolution over neighbors that are chosen by the features."""

    def __init__(self, conv: nn.Module, k: int, dilation: int, reduction: int) -> None:
        super().__init__()
        self.k = k
        self.dilation = dilation
        self.reduction = reduction
        self.gconv = conv

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (B, 2C, H, W), and the neighbors, for a map and its relative positions."""
        nodes = sources = _cells(x)
        if self.reduction > 1:
            sources = _cells(F.avg_pool2d(x, self.reduction))
        neighbors = self.nearest(nodes, sources, bias)
        return self.gconv(nodes, sources, neighbors).unflatten(2, x.shape[2:]), neighbors

    def nearest(self, nodes: Tensor, sources: Tensor, bias: Tensor | None) -> Tensor:
        """Return the nearest sources of every node, (B, N, k), by distance and `bias`."""
        count = sources.shape[1]
        if bias is not None:
            bias = resample_positions(bias, nodes.shape[1], count)[0]
        return knn_graph(
            _unit(nodes),
            self.k,
            sources=None if sources is nodes else _unit(sources),
            bias=bias,
            dilation=max(1, min(self.dilation, count // self.k)),
        )

    def extra_repr(self) -> str:
        return f"k={self.k}, dilation={self.dilation}, reduction={self.reduction}"


def _cells(x: Tensor) -> Tensor:
    """Return the cells of a map (B, C, H, W) as nodes (B, H W, C): a view if channels are last."""
    return x.flatten(2).mT.contiguous()


@torch.no_grad()
def _unit(nodes: Tensor) -> Tensor:
    return F.normalize(at_least_float32(nodes), dim=2)
