"""Neighbor lists and edge lists of graphs of any size, and their complete graphs.

Edges point from the source, row 0, to the target, row 1, which receives its features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.arguments import check_shape
from aurel.ops.ragged_knn_graph import check_batch_values


def edge_index_of(neighbors: Tensor) -> Tensor:
    """Return the edges (2, E) of neighbor lists (M, K), by target, nearest first.

    Args:
        neighbors: int64 rows, -1 in empty slots, as `aurel.ops.ragged_knn_graph` returns.
    """
    check_shape("neighbors", neighbors, "M K")
    target, slot = (neighbors >= 0).nonzero(as_tuple=True)
    return torch.stack((neighbors[target, slot], target))


def neighbors_of(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return the neighbor lists (M, K) of edges (2, E), each in the order of the edges.

    Args:
        edge_index: int64, sources above targets.
        num_nodes: number M of nodes.

    Returns:
        int64, -1 in empty slots; K is the largest number of edges to one node, 1 at least.

    Raises:
        ValueError: `edge_index` has the wrong shape or dtype, or names a node that does not exist.
    """
    return padded_lists(*by_target(edge_index, num_nodes))


def by_target(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the sources (E,) sorted by target, and the number of edges to each node, (M,).

    Raises:
        ValueError: as `neighbors_of`.
    """
    check_edge_index(edge_index, num_nodes)
    source, target = edge_index
    return source[target.argsort(stable=True)], target.bincount(minlength=num_nodes)


def padded_lists(source: Tensor, degree: Tensor) -> Tensor:
    """Return the lists (M, K) for the result of `by_target`, -1 in empty slots."""
    longest = int(degree.max()) if len(degree) else 0
    lists = source.new_full((len(degree), max(1, longest)), -1)
    lists[targets(source, degree), positions(degree, len(source))] = source
    return lists


def targets(source: Tensor, degree: Tensor) -> Tensor:
    """Return the target (E,) of each edge in the result of `by_target`."""
    nodes = torch.arange(len(degree), device=degree.device)
    return nodes.repeat_interleave(degree, output_size=len(source))


def positions(sizes: Tensor, total: int) -> Tensor:
    """Return 0, 1, ... within each of consecutive runs of `sizes`, which add up to `total`."""
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes, output_size=total)
    return torch.arange(total, device=sizes.device) - first


def check_edge_index(edge_index: Tensor, num_nodes: int) -> None:
    """Raise ValueError unless `edge_index` is int64 (2, E) of nodes 0..num_nodes - 1."""
    check_shape("edge_index", edge_index, "2 E", **{"2": 2})
    if edge_index.dtype != torch.int64:
        raise ValueError(f"edge_index must be int64, got {edge_index.dtype}")
    if edge_index.numel() == 0:
        return
    low, high = int(edge_index.min()), int(edge_index.max())
    if low < 0 or high >= num_nodes:
        raise ValueError(f"edge_index must name nodes 0..{num_nodes - 1}, got {low}..{high}")


def complete_graph(batch: Tensor) -> Tensor:
    """Return all edges (2, E) within graphs, loops included, by target, then by source.

    `Ragged` takes and returns pairs of nodes in this order.

    Args:
        batch: (M,) int64, the graph of each node, sorted. Numbers may be skipped.

    Raises:
        ValueError: `batch` has the wrong shape, or is not sorted.
    """
    check_shape("batch", batch, "M")
    check_batch_values(batch)
    sizes = batch.unique_consecutive(return_counts=True)[1]
    each = sizes.repeat_interleave(sizes, output_size=len(batch))
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes, output_size=len(batch))
    total = int(each.sum())
    nodes = torch.arange(len(batch), device=batch.device)
    target = nodes.repeat_interleave(each, output_size=total)
    return torch.stack((first[target] + positions(each, total), target))
