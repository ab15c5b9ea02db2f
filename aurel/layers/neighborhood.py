"""What the graph convolutions over neighbour lists share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.masked_norm import zero_absent
from aurel.ops.arguments import check_shape
from aurel.ops.knn_graph import knn_graph

Metric = Literal["l2", "l1", "cosine", "dot"]


def drop_absent(neighbors: Tensor, mask: Tensor | None) -> Tensor:
    """Return `neighbors`, (B, N, K), with -1 where either end of the edge is absent."""
    if mask is None:
        return neighbors
    samples = torch.arange(mask.shape[0], device=mask.device)[:, None, None]
    exists = mask[samples, neighbors.clamp_min(0)] & (neighbors >= 0) & mask[:, :, None]
    return neighbors.where(exists, -1)


class NeighborGraphConv(nn.Module):
    """Base of the graph convolutions over neighbour lists; they implement `convolve`.

    Args:
        in_channels: width C of the nodes.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may be its own neighbour.
    """

    def __init__(self, in_channels: int, k: int, metric: Metric, loop: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.k = k
        self.metric: Metric = metric
        self.loop = loop

    @overload
    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_graph: Literal[False] = False,
        neighbors: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        return_graph: Literal[True],
        neighbors: Tensor | None = None,
    ) -> tuple[Tensor, RelationGraph]: ...

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
        check_shape("x", x, "B N C", C=self.in_channels)
        x = zero_absent(x, mask)
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
        """Return new nodes, anything where absent, and the neighbours that they listened to.

        `x` is zero where absent, and `neighbors` lists no absent node.
        """
        raise NotImplementedError

    def nearest(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the neighbours of every node where none are given, (B, N, K)."""
        return knn_graph(x, self.k, self.metric, loop=self.loop, mask=mask)

    def extra_repr(self) -> str:
        return f"k={self.k}, metric={self.metric!r}, loop={self.loop}"
