"""Reductions over neighbor lists of graphs of any size: `neighbor_aggregate` of one graph."""

from __future__ import annotations

from torch import Tensor

from aurel.ops.arguments import check_shape
from aurel.ops.backend import Backend
from aurel.ops.neighbor_aggregate import Reduce, neighbor_aggregate
from aurel.ops.ragged_knn_graph import ragged_knn_graph


def ragged_neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: Reduce = "max", *, backend: Backend = "auto"
) -> Tensor:
    r"""Reduce the features of every node's neighbors.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} x_j \quad\text{(or the mean, or the sum)}

    The gradient of a maximum goes to the first (nearest) neighbor that attains it.

    Args:
        x: features of the sources, (Q, C), floating point.
        neighbors: (P, K) int64, rows of x, as `ragged_knn_graph` gives; -1 marks an empty slot.
        reduce: "max", "mean" or "sum".
        backend: see `aurel.use_backend`. "pyg" is torch-scatter: finite float32 and float64.

    Returns:
        (P, C), 0 where a node has no neighbor.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_shape("x", x, "Q C")
    check_shape("neighbors", neighbors, "P K")
    return neighbor_aggregate(x[None], neighbors[None], reduce, backend=backend)[0]


def ragged_knn_max_relative(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    sources: Tensor | None = None,
    source_batch: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Return the maximum of the `k` nearest nodes of the same graph less the node.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} (s_j - x_i)

    The result of `knn_max_relative` with a mask, for graphs in PyTorch Geometric's form.

    Args:
        x: node features, (P, C), floating point.
        batch: (P,) int64, the graph of each node, sorted.
        k: number of neighbors, 1 or more.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may be its own neighbor. Must be True with `sources`.
        sources: features s of the candidates, (Q, C); None for x itself.
        source_batch: (Q,) int64, the graph of each source, sorted; with `sources` only.
        backend: as in `ragged_knn_graph` and `ragged_neighbor_aggregate`.

    Returns:
        The maxima, (P, C), 0 where a node has no neighbor, and the neighbors, (P, K) int64.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    neighbors = ragged_knn_graph(
        x,
        batch,
        k,
        metric,
        loop=loop,
        sources=sources,
        source_batch=source_batch,
        backend=backend,
    )
    others = x if sources is None else sources
    relative = ragged_neighbor_aggregate(others, neighbors, "max", backend=backend) - x
    return relative.masked_fill(neighbors[:, :1] < 0, 0), neighbors
