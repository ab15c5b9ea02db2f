"""The graph of the K nearest nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import graph_obstacle
from aurel.ops.arguments import (
    check_bool,
    check_choice,
    check_device,
    check_floating,
    check_input,
    check_k,
    check_mask,
    check_shape,
    promote,
)
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import METRICS, pairwise_scores_reference
from aurel.ops.registration import operator
from aurel.ops.selection import exclude, select_nearest, select_nearest_reference


def knn_graph_reference(
    x: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    mask: Tensor | None = None,
    sources: Tensor | None = None,
    source_mask: Tensor | None = None,
    bias: Tensor | None = None,
    dilation: int = 1,
) -> Tensor:
    """Compute `knn_graph` by its definition: the first K of a stable sort of all scores."""
    if sources is None:
        source_mask = mask
    else:
        sources = sources.detach()
    bias = None if bias is None else bias.detach()
    scores = pairwise_scores_reference(x.detach(), metric, sources, bias)
    return select_nearest_reference(exclude(scores, loop, mask, source_mask), k, dilation)


def knn_graph(
    x: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    mask: Tensor | None = None,
    sources: Tensor | None = None,
    source_mask: Tensor | None = None,
    bias: Tensor | None = None,
    dilation: int = 1,
    backend: Backend = "auto",
) -> Tensor:
    r"""Return the `k` nearest nodes of every node.

    .. math:: \mathcal{N}(i) = \operatorname{arg\,min}_j^{(k)} \; d(x_i, s_j) + b_{ij}

    Exactly `k` neighbors, nearest first, ties to the lowest index. Distances are computed in
    float32 at least, by one reduction over the channels of a pair; NaN counts as infinity, so that
    a node with NaN is chosen only when no other is left. No gradient flows through the choice.

    Args:
        x: node features, (B, N, C), floating point.
        k: number of neighbors, 1..M (1..M-1 without `loop`), M being N without `sources`.
        metric: "l2" (squared distances, where a bias is added), "l1", "cosine" (distance 1 - cos)
            or "dot" (the largest products).
        loop: a node may be its own neighbor. Must be True with `sources`.
        mask: (B, N) bool, True where the node exists. Absent nodes neither have neighbors nor are
            neighbors.
        sources: features s of the candidates, (B, M, C); None for x itself.
        source_mask: (B, M) bool, True where the source exists; with `sources` only.
        bias: b, (N, M) or (B, N, M), added to the distances; no gradient flows to it.
        dilation: d; of the k * d nearest every d-th is taken, from the nearest on.
        backend: see `aurel.use_backend`.

    Returns:
        (B, N, K) int64, rows of the sources; -1 where fewer than `k` nodes can be chosen.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.

    Source: Han et al., "Vision GNN", 2022 (sources of another resolution, bias, dilation).
    """
    check_knn_arguments(x, k, metric, loop, mask, sources, source_mask, bias, dilation)
    impl = knn_backend("knn_graph", backend, x, sources, k, dilation)
    x, bias = x.detach(), None if bias is None else bias.detach()
    if sources is not None:
        x, sources = promote(x, sources.detach())
    neighbors: Tensor = _knn_graph(
        x, sources, bias, mask, source_mask, k, metric, loop, dilation, impl
    )
    return neighbors


def knn_backend(
    op: str, backend: Backend, x: Tensor, sources: Tensor | None, k: int, dilation: int
) -> str:
    """Return the backend of an op that chooses neighbors."""
    tensors = (x,) if sources is None else (x, sources)
    nodes = max(tensor.shape[1] for tensor in tensors)
    sizes = lambda: graph_obstacle(nodes, x.shape[2], k * dilation)  # noqa: E731
    return resolve_backend(op, backend, tensors, sizes)


def check_knn_arguments(
    x: Tensor,
    k: int,
    metric: str,
    loop: bool,
    mask: Tensor | None,
    sources: Tensor | None = None,
    source_mask: Tensor | None = None,
    bias: Tensor | None = None,
    dilation: int = 1,
) -> None:
    """Raise ValueError or TypeError unless these are arguments of a K-nearest-neighbor op."""
    check_input("x", x, "B N C")
    check_mask(mask, x)
    check_choice("metric", metric, METRICS)
    check_bool("loop", loop)
    if sources is None:
        if source_mask is not None:
            raise ValueError("source_mask must be None without sources, got a tensor")
        nodes = x.shape[1]
    else:
        check_input("sources", sources, "B M C", x, B=x.shape[0], C=x.shape[2])
        check_mask(source_mask, sources, "source_mask")
        nodes = sources.shape[1]
        if not loop:
            raise ValueError("loop must be True with sources, got False")
    check_k(k, nodes, loop, dilation)
    if bias is not None:
        check_floating("bias", bias)
        check_device("bias", bias, x)
        if bias.dim() == 2:
            check_shape("bias", bias, "N M", N=x.shape[1], M=nodes)
        else:
            check_shape("bias", bias, "B N M", B=x.shape[0], N=x.shape[1], M=nodes)


def define_knn_graph(call: Any) -> Tensor:
    """Return the neighbors that the definition gives for a call of an operator."""
    return knn_graph_reference(
        call.x,
        call.k,
        call.metric,
        loop=call.loop,
        mask=call.mask,
        sources=call.sources,
        source_mask=call.source_mask,
        bias=call.bias,
        dilation=call.dilation,
    )


def count_knn_flops(call: Any) -> int:
    """Count the pairwise products or differences of nodes; `call` holds shapes."""
    batch, nodes, channels = call.x
    sources = nodes if call.sources is None else call.sources[1]
    return 0 if call.metric == "l1" else int(2 * batch * nodes * sources * channels)


@operator(
    shapes=lambda call: call.x.new_empty((*call.x.shape[:2], call.k), dtype=torch.int64),
    definition=define_knn_graph,
    flops=count_knn_flops,
    gradient=None,
)
def _knn_graph(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
    impl: str,
) -> Tensor:
    source_mask = mask if sources is None else source_mask
    return select_nearest(x, sources, bias, mask, source_mask, k, metric, loop, dilation)
