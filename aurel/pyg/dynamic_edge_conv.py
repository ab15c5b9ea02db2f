"""Edge convolution on a graph of nearest neighbors, with PyTorch Geometric's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from aurel.ops.arguments import check_choice
from aurel.ops.gather_reduce import gather_rows
from aurel.ops.neighbor_aggregate import Reduce
from aurel.pyg.edges import edge_index_of
from aurel.pyg.knn import nearest
from aurel.pyg.reduce_edges import reduce_edges

Aggregation = Literal["max", "mean", "sum", "add"]


class DynamicEdgeConv(nn.Module):
    r"""Map the edges from the k nearest nodes, and aggregate those of each node.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} h([x_i ; x_j - x_i])

    A replacement of ``torch_geometric.nn.DynamicEdgeConv`` (Wang et al., ACM TOG 2019), with the
    same numbers and the same keys in a checkpoint, and without a compiled extension. A node is one
    of its own neighbors. The constructor does not change the parameters of `nn`.

    Args:
        nn: h, a module that maps (E, 2C) to (E, C').
        k: number of neighbors, 1 or more; in a smaller graph, all nodes.
        aggr: "max", whose gradient goes to the nearest neighbor that attains it, "mean", "sum",
            or "add", an alias of "sum".

    Raises:
        ValueError: `aggr` is none of these.
    """

    def __init__(self, nn: Callable[[Tensor], Tensor], k: int, aggr: Aggregation = "max") -> None:
        super().__init__()
        check_choice("aggr", aggr, get_args(Aggregation))
        self.nn = nn
        self.k = k
        self.aggr: Aggregation = aggr

    def reset_parameters(self) -> None:
        """Initialize the parameters of `nn` again."""
        _reset(self.nn)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        batch: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    ) -> Tensor:
        """Return the convolved nodes.

        Args:
            x: (M, C), or sources (Q, C) and targets (M, C).
            batch: (M,) int64, the graph of each node, sorted, or those of sources and targets;
                None for one graph.

        Returns:
            (M, C').

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        sources, nodes = x if isinstance(x, tuple) else (x, x)
        batches = batch if isinstance(batch, tuple) else (batch, batch)
        neighbors = nearest(sources, nodes, self.k, *batches)
        source, target = edge_index_of(neighbors)
        center = gather_rows(nodes, target)
        edges = self.nn(torch.cat((center, gather_rows(sources, source) - center), dim=-1))
        degree = (neighbors >= 0).sum(1)
        reduce: Reduce = "sum" if self.aggr == "add" else self.aggr
        return reduce_edges(edges, torch.arange(len(edges), device=edges.device), degree, reduce)

    def extra_repr(self) -> str:
        return f"k={self.k}, aggr={self.aggr!r}"


def _reset(module: object) -> None:
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    elif isinstance(module, nn.Module):
        for child in module.children():
            _reset(child)
