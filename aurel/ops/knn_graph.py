"""The graph of the K nearest nodes."""

from __future__ import annotations

from importlib import import_module

import torch
from aurel_kernels.sizes import graph_obstacle
from torch import Tensor

from aurel.ops.arguments import check_choice, check_k, check_mask, check_nodes
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import METRICS, pairwise_scores, pairwise_scores_reference
from aurel.ops.selection import exclude, select_nearest, select_nearest_reference
from aurel.ops.triton_support import triton_obstacle


def knn_graph_reference(
    x: Tensor, k: int, metric: str = "l2", *, loop: bool = True, mask: Tensor | None = None
) -> Tensor:
    """Return what `knn_graph` does: a stable sort of all pairwise scores, cut after K."""
    scores = pairwise_scores_reference(x.detach(), metric).nan_to_num(
        nan=torch.inf, posinf=torch.inf, neginf=-torch.inf
    )
    return select_nearest_reference(exclude(scores, loop, mask), k)


def nearest(x: Tensor, mask: Tensor | None, k: int, metric: str, loop: bool) -> Tensor:
    """Return what `knn_graph_reference` does, by matrix products and an exact top-K."""
    return select_nearest(exclude(pairwise_scores(x, metric, mask), loop, mask), k)


def knn_obstacle(x: Tensor, k: int) -> str | None:
    """Return why Triton cannot choose neighbours in this call, or None if it can."""
    return triton_obstacle(x, graph_obstacle(x.shape[1], x.shape[2], k))


@torch.library.custom_op("aurel::knn_graph", mutates_args=())
def _knn_graph(
    x: Tensor, mask: Tensor | None, k: int, metric: str, loop: bool, impl: str
) -> Tensor:
    if impl == "triton":
        kernels = import_module("aurel_kernels.knn")
        return kernels.forward(x, k, metric, loop, mask)
    return nearest(x, mask, k, metric, loop)


@_knn_graph.register_fake
def _(x: Tensor, mask: Tensor | None, k: int, metric: str, loop: bool, impl: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], k), dtype=torch.int64)


def check_knn_arguments(x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None) -> None:
    """Raise ValueError unless these are arguments of a K-nearest-neighbour op."""
    check_nodes("x", x)
    check_mask(mask, x)
    check_choice("metric", metric, METRICS)
    check_k(k, x.shape[1], loop)


def knn_graph(
    x: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""Return the `k` nearest nodes of every node.

    .. math:: \mathcal{N}(i) = \operatorname{arg\,min}_j^{(k)} d(x_i, x_j)

    Exactly `k` neighbours, nearest first, ties to the lowest index. Distances are taken in
    float32 at least; one that is NaN counts as infinite, so that a node with NaN is chosen
    only when nobody else is left. No gradient flows through the choice.

    Args:
        x: node features, (B, N, C), floating point.
        k: number of neighbours, 1..N (1..N-1 without `loop`).
        metric: "l2", "l1", "cosine" (distance 1 - cos) or "dot" (the largest products).
        loop: a node may choose itself.
        mask: (B, N) bool, True where the node exists. Absent nodes neither choose nor are chosen.
        backend: see `aurel.use_backend`.

    Returns:
        (B, N, K) int64; -1 where fewer than `k` nodes can be chosen.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    check_knn_arguments(x, k, metric, loop, mask)
    impl = resolve_backend("knn_graph", backend, x, knn_obstacle(x, k))
    return _knn_graph(x.detach(), mask, k, metric, loop, impl)
