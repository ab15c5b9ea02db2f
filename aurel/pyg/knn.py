"""The nearest neighbors as edges, with the arguments of PyTorch Geometric's functions."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from aurel.ops.arguments import check_choice
from aurel.ops.distances import Metric
from aurel.ops.ragged_knn_graph import ragged_knn_graph
from aurel.pyg.edges import edge_index_of

Flow = Literal["source_to_target", "target_to_source"]


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: Flow = "source_to_target",
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return the edges to every node from the `k` nearest nodes of its graph.

    A replacement of ``torch_geometric.nn.knn_graph`` without a compiled extension. Equal nodes have
    `k` neighbors like all others; ties go to the lowest index.

    Args:
        x: node features, (M, C), floating point.
        k: number of neighbors, 1 or more; in a smaller graph, all nodes.
        batch: (M,) int64, the graph of each node, sorted; None for one graph.
        loop: a node may be its own neighbor.
        flow: "source_to_target" for edges from the neighbor to the node, "target_to_source" for
            the rows in the other order.
        cosine: compare by the cosine instead of the Euclidean distance.
        num_workers: not used.
        batch_size: not used.

    Returns:
        (2, E) int64, by node, nearest first.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_choice("flow", flow, get_args(Flow))
    batch = one_graph(x) if batch is None else batch
    neighbors = ragged_knn_graph(x, batch, k, "cosine" if cosine else "l2", loop=loop)
    edges = edge_index_of(neighbors)
    return edges if flow == "source_to_target" else edges.flip(0)


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return, for every row of `y`, the `k` nearest rows of `x` in the same graph.

    A replacement of ``torch_geometric.nn.knn`` without a compiled extension.

    Args:
        x: features of the sources, (Q, C), floating point.
        y: features of the targets, (P, C).
        k: number of neighbors, 1 or more; in a smaller graph, all nodes.
        batch_x: (Q,) int64, the graph of each row of x, sorted; None for one graph.
        batch_y: (P,) int64, the graph of each row of y, sorted; None for one graph.
        cosine: compare by the cosine instead of the Euclidean distance.
        num_workers: not used.
        batch_size: not used.

    Returns:
        (2, E) int64, rows of y above rows of x, by row of y, nearest first.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    metric: Metric = "cosine" if cosine else "l2"
    return edge_index_of(nearest(x, y, k, batch_x, batch_y, metric)).flip(0)


def nearest(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None,
    batch_y: Tensor | None,
    metric: Metric = "l2",
) -> Tensor:
    """Return the lists, (P, K), of the `k` nearest rows of x for every row of y."""
    if (batch_x is None) != (batch_y is None):
        missing, other = ("batch_x", batch_y) if batch_x is None else ("batch_y", batch_x)
        if other is not None and bool((other != 0).any()):
            raise ValueError(f"{missing} must be a tensor for several graphs, got None")
    same = x is y and batch_x is batch_y
    batch_x = one_graph(x) if batch_x is None else batch_x
    batch_y = one_graph(y) if batch_y is None else batch_y
    if same:  # for which backends and kernels have faster code
        return ragged_knn_graph(x, batch_x, k, metric)
    return ragged_knn_graph(y, batch_y, k, metric, sources=x, source_batch=batch_x)


def one_graph(x: Tensor) -> Tensor:
    """Return the batch in which all rows of `x` belong to graph 0."""
    return torch.zeros(len(x), dtype=torch.int64, device=x.device)
