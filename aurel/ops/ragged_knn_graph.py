"""The graph of the K nearest nodes among graphs of any size."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.kernels.triton.sizes import graph_obstacle
from aurel.ops.arguments import (
    check_bool,
    check_choice,
    check_device,
    check_input,
    check_integer,
    check_shape,
    promote,
)
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import METRICS
from aurel.ops.knn_graph import knn_graph, knn_graph_reference
from aurel.ops.pyg_support import check_finite, nearest_in_graphs, pyg_obstacle
from aurel.ops.registration import operator


def ragged_knn_graph_reference(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    sources: Tensor | None = None,
    source_batch: Tensor | None = None,
) -> Tensor:
    """Compute `ragged_knn_graph` by its definition: `knn_graph_reference`, graph by graph."""
    if sources is None or source_batch is None:
        sources, source_batch = x, batch
    lists = [batch.new_empty(0, k)]
    for graph in batch.unique():
        nodes = x[None, batch == graph]
        candidates = (source_batch == graph).nonzero()[:, 0]
        chosen = max(0, min(k, len(candidates) - (not loop)))
        others = None if sources is x else sources[None, candidates]
        nearest = knn_graph_reference(nodes, chosen, metric, loop=loop, sources=others)[0]
        lists.append(F.pad(candidates[nearest], (0, k - chosen), value=-1))
    return torch.cat(lists)


def ragged_knn_graph(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    sources: Tensor | None = None,
    source_batch: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""Return the `k` nearest nodes of every node within its own graph.

    .. math:: \mathcal{N}(i) = \operatorname{arg\,min}^{(k)}_{j :\, b_j = b_i} d(x_i, s_j)

    The neighbors of `knn_graph` with a mask, for graphs in PyTorch Geometric's form: exactly `k`
    neighbors, or all there are in a smaller graph, nearest first, ties to the lowest index.
    Work and memory grow with the squares of the graphs' sizes, not with that of the largest, and
    not with the numbers in `batch`.

    Args:
        x: node features, (P, C), floating point.
        batch: (P,) int64, the graph of each node, sorted. Numbers may be skipped.
        k: number of neighbors, 1 or more.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may be its own neighbor. Must be True with `sources`.
        sources: features s of the candidates, (Q, C); None for x itself.
        source_batch: (Q,) int64, the graph of each source, sorted; with `sources` only.
        backend: see `aurel.use_backend`. "pyg" is torch-cluster: "l2" of finite float32 and
            float64 without `sources`, the same neighbors up to the rounding of distances.

    Returns:
        (P, K) int64, rows of the sources; -1 where a graph has fewer than `k` nodes to choose.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    _check_arguments(x, batch, k, metric, loop, sources, source_batch)
    if sources is not None:
        x, sources = promote(x, sources.detach())
    impl = resolve_backend(
        "ragged_knn_graph",
        backend,
        (x,),
        lambda: graph_obstacle(1, x.shape[1], k),
        lambda: _pyg_obstacle(x, metric, sources),
    )
    neighbors: Tensor = _ragged_knn_graph(
        x.detach(), batch, sources, source_batch, k, metric, loop, impl
    )
    return neighbors


def _check_arguments(
    x: Tensor,
    batch: Tensor,
    k: int,
    metric: str,
    loop: bool,
    sources: Tensor | None,
    source_batch: Tensor | None,
) -> None:
    """Raise ValueError or TypeError unless these are arguments of the op."""
    check_input("x", x, "P C")
    check_batch(batch, x)
    check_choice("metric", metric, METRICS)
    check_bool("loop", loop)
    check_integer("k", k)
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    if (sources is None) != (source_batch is None):
        missing = "sources" if sources is None else "source_batch"
        raise ValueError(f"{missing} must be given with its counterpart, got None")
    if sources is not None and source_batch is not None:
        check_input("sources", sources, "Q C", x, C=x.shape[1])
        check_batch(source_batch, sources, "source_batch")
        if not loop:
            raise ValueError("loop must be True with sources, got False")


def check_batch(batch: Tensor, x: Tensor, name: str = "batch") -> None:
    """Raise ValueError unless `batch` is int64 (P,), for `x` (P, ...)."""
    check_shape(name, batch, "P", P=x.shape[0])
    if batch.dtype != torch.int64:
        raise ValueError(f"{name} must be int64 (the graph of each node), got {batch.dtype}")
    check_device(name, batch, x)


def check_batch_values(batch: Tensor, name: str = "batch") -> None:
    """Raise ValueError unless `batch` numbers graphs from 0 on and is sorted."""
    if len(batch) == 0:
        return
    if int(batch[0]) < 0:
        raise ValueError(f"{name} must number graphs from 0 on, got {int(batch[0])}")
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError(f"{name} must be sorted, got a smaller number after a larger one")


def _pyg_obstacle(x: Tensor, metric: str, sources: Tensor | None) -> str | None:
    if metric != "l2":
        return f"torch-cluster measures l2 distances alone, got metric={metric!r}"
    if sources is not None:
        return "torch-cluster is not used with sources"
    return pyg_obstacle(x, "torch_cluster")


def _check(call: Any) -> None:
    check_batch_values(call.batch)
    if call.source_batch is not None:
        check_batch_values(call.source_batch, "source_batch")


def _define(call: Any) -> Tensor:
    return ragged_knn_graph_reference(
        call.x,
        call.batch,
        call.k,
        call.metric,
        loop=call.loop,
        sources=call.sources,
        source_batch=call.source_batch,
    )


@operator(
    shapes=lambda call: call.batch.new_empty((call.x.shape[0], call.k)),
    definition=_define,
    flops=None,  # they depend on the sizes of the graphs, not on shapes
    kernels=("numba",),
    gradient=None,
    check=_check,
)
def _ragged_knn_graph(
    x: Tensor,
    batch: Tensor,
    sources: Tensor | None,
    source_batch: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    impl: str,
) -> Tensor:
    if impl == "pyg":
        check_finite("ragged_knn_graph", x)
        return nearest_in_graphs(x, batch.unique_consecutive(return_inverse=True)[1], k, loop)
    if sources is None or source_batch is None:
        sources, source_batch = x, batch
    return _nearest_by_width(x, batch, sources, source_batch, k, metric, loop, impl)


def _nearest_by_width(
    x: Tensor,
    batch: Tensor,
    sources: Tensor,
    source_batch: Tensor,
    k: int,
    metric: str,
    loop: bool,
    impl: str,
) -> Tensor:
    """Return the neighbors, by one padded batch for all graphs of about the same size."""
    lists = batch.new_full((len(x), k), -1)
    if len(sources) == 0:
        return lists
    first, sizes, source_first, source_sizes = _runs(batch, source_batch)
    own = sources is x
    source_widths = _power_of_two(source_sizes.clamp_min(k + (not loop)))
    widths = source_widths if own else _power_of_two(sizes)
    # A kernel may serve the size of one graph and not that of another.
    backend = cast(Backend, "auto" if x.is_cuda and impl == "triton" else impl)
    for width, source_width in torch.stack((widths, source_widths), 1).unique(dim=0).tolist():
        graphs = (widths == width) & (source_widths == source_width)
        nodes, mask = _padded(first[graphs], sizes[graphs], width)
        index, source_mask = _padded(source_first[graphs], source_sizes[graphs], source_width)
        found = knn_graph(
            x[nodes],
            k,
            metric,
            loop=loop,
            mask=mask,
            sources=None if own else sources[index],
            source_mask=None if own else source_mask,
            backend=backend,
        )
        found = (found + source_first[graphs][:, None, None]).where(found >= 0, -1)
        lists[nodes[mask]] = found[mask]
    return lists


def _runs(batch: Tensor, source_batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, for each graph, first node, number of nodes, first source and number of sources."""
    numbers, sizes = batch.unique_consecutive(return_counts=True)
    first = sizes.cumsum(0) - sizes
    source_first = torch.searchsorted(source_batch, numbers)
    source_end = torch.searchsorted(source_batch, numbers, right=True)
    return first, sizes, source_first, source_end - source_first


def _power_of_two(sizes: Tensor) -> Tensor:
    return 2 ** sizes.clamp_min(1).double().log2().ceil().long()


def _padded(first: Tensor, sizes: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the rows of each graph, padded with 0 to `width`, and the mask of those."""
    place = torch.arange(width, device=first.device)
    mask = place < sizes[:, None]
    return (first[:, None] + place).where(mask, 0), mask
