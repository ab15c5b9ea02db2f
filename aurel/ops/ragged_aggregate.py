"""Reductions over neighbour lists of graphs of any size; `neighbor_aggregate` of one graph."""

from __future__ import annotations

from torch import Tensor

from aurel.ops.arguments import check_shape
from aurel.ops.backend import Backend
from aurel.ops.neighbor_aggregate import Reduce, neighbor_aggregate
from aurel.ops.ragged_knn_graph import ragged_knn_graph


def ragged_neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: Reduce = "max", *, backend: Backend = "auto"
) -> Tensor:
    r"""Reduce the features of every node's neighbours.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} x_j \quad\text{(or the mean, or the sum)}

    The gradient of a maximum goes to the first (nearest) neighbour that attains it.

    Args:
        x: node features, (M, C), floating point.
        neighbors: (M, K) int64, rows of x, as `ragged_knn_graph` gives; -1 marks an empty slot.
        reduce: "max", "mean" or "sum".
        backend: see `aurel.use_backend`. "pyg" is torch-scatter: finite float32 and float64.

    Returns:
        (M, C), 0 where a node has no neighbour.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    check_shape("x", x, "M C")
    check_shape("neighbors", neighbors, "M K", M=len(x))
    return neighbor_aggregate(x[None], neighbors[None], reduce, backend=backend)[0]


def ragged_knn_max_relative(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Return how far the `k` nearest nodes of its graph reach above every node.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} (x_j - x_i)

    What `knn_max_relative` does with a mask, for graphs in PyTorch Geometric's form.

    Args:
        x: node features, (M, C), floating point.
        batch: (M,) int64, the graph of each node, sorted.
        k: number of neighbours, 1 or more.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may choose itself.
        backend: as in `ragged_knn_graph` and `ragged_neighbor_aggregate`.

    Returns:
        The maxima, (M, C), 0 where a node has no neighbour, and the neighbours, (M, K) int64.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    neighbors = ragged_knn_graph(x, batch, k, metric, loop=loop, backend=backend)
    relative = ragged_neighbor_aggregate(x, neighbors, "max", backend=backend) - x
    return relative.masked_fill(neighbors[:, :1] < 0, 0), neighbors
