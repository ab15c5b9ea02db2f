"""The graph convolutions on edges of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.graph_convs import (
    EdgeGraphConv,
    GINGraphConv,
    MaxRelativeGraphConv,
    NeighborGraphConv,
    SAGEGraphConv,
)
from aurel.layers.linear_norm import LinearNorm, grouped_linear, interleave
from aurel.layers.masked_norm import batch_norm, mask_of_rows
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape
from aurel.ops.gather_reduce import gather_rows
from aurel.pyg.edges import by_target, targets
from aurel.pyg.reduce_edges import reduce_edges


class OnEdges(nn.Module):
    r"""Run a graph convolution on edges of the caller, as layers of PyTorch Geometric do.

    Parallel edges and loops count like all edges. Work and memory grow with the nodes and the
    edges, not with the largest number of edges to one node.

    Args:
        layer: `MaxRelativeGraphConv`, `EdgeGraphConv`, `GINGraphConv` or `SAGEGraphConv`.

    Raises:
        ValueError: the layer is none of these.
    """

    layer: NeighborGraphConv

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if not isinstance(layer, NeighborGraphConv) or type(layer) not in _CONVOLVE:
            names = ", ".join(known.__name__ for known in _CONVOLVE)
            raise ValueError(f"layer must be one of {names}, got {type(layer).__name__}")
        if layer.embedding is not None:
            raise ValueError(
                f"layer must have no node embedding, got {type(layer).__name__} with one"
            )
        self.layer = layer

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return the convolved nodes.

        Args:
            x: (M, C).
            edge_index: (2, E) int64, from source to target.

        Returns:
            (M, out_channels).

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        check_shape("x", x, "M C", C=self.layer.in_channels)
        return _CONVOLVE[type(self.layer)](self.layer, x, *by_target(edge_index, len(x)))


def _max_relative(layer: MaxRelativeGraphConv, x: Tensor, source: Tensor, degree: Tensor) -> Tensor:
    relative = reduce_edges(x, source, degree, "max") - x
    relative = relative.masked_fill((degree == 0)[:, None], 0)
    return F.gelu(layer.project(interleave(x, relative), mask_of_rows(layer, x)))


def _edge(layer: EdgeGraphConv, x: Tensor, source: Tensor, degree: Tensor) -> Tensor:
    """Map both ends as nodes, then add them edge by edge: the sum is W [x_i ; x_j - x_i] + b."""
    linear = layer.project
    if not is_plain(linear, LinearNorm):
        center = gather_rows(x, targets(source, degree))
        edges = interleave(center, gather_rows(x, source) - center)
        edges = F.gelu(linear(edges, mask_of_rows(linear, edges)))
        return reduce_edges(edges, torch.arange(len(edges), device=edges.device), degree, "max")
    itself, difference = linear.weight[:, ::2], linear.weight[:, 1::2]
    of_target = grouped_linear(x, itself - difference, linear.bias, linear.groups)
    of_source = grouped_linear(x, difference.contiguous(), None, linear.groups)
    edges = gather_rows(of_target, targets(source, degree)) + gather_rows(of_source, source)
    edges = F.gelu(batch_norm(linear.norm, edges, mask_of_rows(linear, edges)))
    return reduce_edges(edges, torch.arange(len(edges), device=edges.device), degree, "max")


def _gin(layer: GINGraphConv, x: Tensor, source: Tensor, degree: Tensor) -> Tensor:
    total = (1 + layer.epsilon) * x + reduce_edges(x, source, degree, "sum")
    return F.gelu(layer.project(total, mask_of_rows(layer, x)))


def _sage(layer: SAGEGraphConv, x: Tensor, source: Tensor, degree: Tensor) -> Tensor:
    messages = F.gelu(layer.message(x, mask_of_rows(layer, x)))
    largest = reduce_edges(messages, source, degree, "max")
    return F.gelu(layer.project(interleave(x, largest), mask_of_rows(layer, x)))


_CONVOLVE: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    MaxRelativeGraphConv: _max_relative,
    EdgeGraphConv: _edge,
    GINGraphConv: _gin,
    SAGEGraphConv: _sage,
}
