"""Neighbour lists and edge lists of graphs of any size, and their complete graphs.

Edges point from the node that is listened to, row 0, to the node that listens, row 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.arguments import check_shape


def edge_index_of(neighbors: Tensor) -> Tensor:
    """Return the edges (2, E) of neighbour lists (M, K), by listener, nearest first.

    Args:
        neighbors: int64 rows, -1 in empty slots, as `aurel.ops.ragged_knn_graph` gives.
    """
    check_shape("neighbors", neighbors, "M K")
    target, place = (neighbors >= 0).nonzero(as_tuple=True)
    return torch.stack((neighbors[target, place], target))


def neighbors_of(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return the neighbour lists (M, K) of edges (2, E), each in the order of the edges.

    Args:
        edge_index: int64, sources above targets.
        num_nodes: number M of nodes.

    Returns:
        int64, -1 in empty slots; K is the most edges that lead to one node, 1 at least.

    Raises:
        ValueError: `edge_index` has the wrong shape or dtype, or names a node that there is not.
    """
    check_edge_index(edge_index, num_nodes)
    source, target = edge_index[:, edge_index[1].argsort(stable=True)]
    degree = target.bincount(minlength=num_nodes)
    place = torch.arange(len(target), device=target.device)
    place = place - (degree.cumsum(0) - degree)[target]
    longest = int(degree.max()) if num_nodes else 0
    lists = edge_index.new_full((num_nodes, max(1, longest)), -1)
    lists[target, place] = source
    return lists


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
    """Return all edges (2, E) within graphs, loops included, by listener, then by source.

    The order of what `Ragged` takes and gives for pairs of nodes.

    Args:
        batch: (M,) int64, the graph of each node, sorted.
    """
    check_shape("batch", batch, "M")
    sizes = batch.bincount()
    each = sizes[batch]
    target = torch.arange(len(batch), device=batch.device).repeat_interleave(each)
    place = torch.arange(len(target), device=batch.device) - (each.cumsum(0) - each)[target]
    return torch.stack(((sizes.cumsum(0) - sizes)[batch[target]] + place, target))
