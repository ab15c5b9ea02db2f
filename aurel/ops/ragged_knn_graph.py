"""The graph of the K nearest nodes among graphs of any size."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from aurel.ops.arguments import check_choice, check_device, check_floating, check_shape
from aurel.ops.backend import Backend, requested_backend
from aurel.ops.distances import METRICS
from aurel.ops.knn_graph import knn_graph, knn_graph_reference
from aurel.ops.pyg_support import check_finite, nearest_in_graphs, pyg_obstacle


def ragged_knn_graph_reference(
    x: Tensor, batch: Tensor, k: int, metric: str = "l2", *, loop: bool = True
) -> Tensor:
    """Return what `ragged_knn_graph` does: `knn_graph_reference` of one graph after the other."""
    lists = batch.new_full((len(x), k), -1)
    for graph in batch.unique():
        nodes = (batch == graph).nonzero()[:, 0]
        chosen = min(k, len(nodes) - (not loop))
        if chosen > 0:
            nearest = knn_graph_reference(x[None, nodes], chosen, metric, loop=loop)[0]
            lists[nodes, :chosen] = nodes[nearest]
    return lists


@torch.library.custom_op("aurel::ragged_knn_graph", mutates_args=())
def _ragged_knn_graph(
    x: Tensor, batch: Tensor, k: int, metric: str, loop: bool, impl: str
) -> Tensor:
    check_batch_values(batch)
    if impl == "pyg":
        check_finite("ragged_knn_graph", x)
        return nearest_in_graphs(x, batch, k, loop)
    return _nearest_by_width(x, batch, k, metric, loop, cast(Backend, impl))


@_ragged_knn_graph.register_fake
def _(x: Tensor, batch: Tensor, k: int, metric: str, loop: bool, impl: str) -> Tensor:
    return batch.new_empty((x.shape[0], k))


def _nearest_by_width(
    x: Tensor, batch: Tensor, k: int, metric: str, loop: bool, backend: Backend
) -> Tensor:
    """Serve graphs of about the same size as one masked batch, padded to a power of two."""
    lists = batch.new_full((len(x), k), -1)
    if len(x) == 0:
        return lists
    sizes = batch.bincount()
    first = sizes.cumsum(0) - sizes
    widths = 2 ** sizes.clamp_min(k + (not loop)).log2().ceil().long()
    for width in widths.unique().tolist():
        graphs = ((widths == width) & (sizes > 0)).nonzero()
        place = torch.arange(width, device=x.device)
        mask = place < sizes[graphs]
        nodes = (first[graphs] + place).where(mask, 0)
        found = knn_graph(x[nodes], k, metric, loop=loop, mask=mask, backend=backend)
        lists[nodes[mask]] = (found + first[graphs][:, None]).where(found >= 0, -1)[mask]
    return lists


def check_batch(batch: Tensor, x: Tensor) -> None:
    """Raise ValueError unless `batch` is int64 (M,) beside `x` (M, ...)."""
    check_shape("batch", batch, "M", M=x.shape[0])
    if batch.dtype != torch.int64:
        raise ValueError(f"batch must be int64 (the graph of each node), got {batch.dtype}")
    check_device("batch", batch, x)


def check_batch_values(batch: Tensor) -> None:
    """Raise ValueError unless `batch` numbers graphs from 0 on and is sorted."""
    if len(batch) and (int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any())):
        raise ValueError("batch must number graphs from 0 on and be sorted")


def ragged_knn_graph(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    backend: Backend = "auto",
) -> Tensor:
    r"""Return the `k` nearest nodes of every node within its own graph.

    .. math:: \mathcal{N}(i) = \operatorname{arg\,min}^{(k)}_{j :\, b_j = b_i} d(x_i, x_j)

    What `knn_graph` does with a mask, for graphs in PyTorch Geometric's form: exactly `k`
    neighbours, or all there are in a smaller graph, nearest first, ties to the lowest index.
    Memory grows with the squares of the graphs' sizes, not with that of the largest.

    Args:
        x: node features, (M, C), floating point.
        batch: (M,) int64, the graph of each node, sorted. Numbers may be left out.
        k: number of neighbours, 1 or more.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may choose itself.
        backend: see `aurel.use_backend`. "pyg" is torch-cluster: "l2" of finite float32 and
            float64, the same neighbours up to the rounding of distances.

    Returns:
        (M, K) int64, rows of x; -1 where a graph has fewer than `k` nodes to choose.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    check_shape("x", x, "M C")
    check_floating("x", x)
    check_batch(batch, x)
    check_choice("metric", metric, METRICS)
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    obstacle = pyg_obstacle(backend, x, "torch_cluster")
    impl = requested_backend(backend)
    if impl == "pyg" and metric != "l2":
        obstacle = obstacle or f"measures l2 distances alone, got metric={metric!r}"
    if obstacle is not None:
        raise ValueError(f"ragged_knn_graph: backend='pyg' {obstacle}")
    return _ragged_knn_graph(x.detach(), batch, k, metric, loop, impl)
