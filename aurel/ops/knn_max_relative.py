"""K nearest neighbors and the maximum of their features relative to the node's, in one op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.kernels.winners import winner_dtype
from aurel.ops.arguments import promote
from aurel.ops.backend import Backend
from aurel.ops.distances import at_least_float32
from aurel.ops.gather_reduce import (
    add_to_winner,
    max_over_neighbors,
    without_neighbors,
)
from aurel.ops.knn_graph import (
    check_knn_arguments,
    count_knn_flops,
    define_knn_graph,
    knn_backend,
    knn_graph_reference,
)
from aurel.ops.neighbor_aggregate import neighbor_aggregate_reference
from aurel.ops.registration import Gradient, operator
from aurel.ops.selection import select_nearest


def knn_max_relative_reference(
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
) -> tuple[Tensor, Tensor]:
    """Compute `knn_max_relative` by its definition: a choice, a maximum, a difference."""
    neighbors = knn_graph_reference(
        x,
        k,
        metric,
        loop=loop,
        mask=mask,
        sources=sources,
        source_mask=source_mask,
        bias=bias,
        dilation=dilation,
    )
    return _max_relative(x, sources, neighbors), neighbors


def _max_relative(x: Tensor, sources: Tensor | None, neighbors: Tensor) -> Tensor:
    sources = x if sources is None else sources
    relative = neighbor_aggregate_reference(sources, neighbors, "max") - x
    return relative.masked_fill(without_neighbors(neighbors), 0)


def knn_max_relative(
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
) -> tuple[Tensor, Tensor]:
    r"""Return the maximum of the `k` nearest nodes less the node, channel by channel.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} (s_j - x_i)

    The neighbors are those of `knn_graph`. The gradient goes to the node and, in each channel,
    to the first (nearest) neighbor that attains the maximum; none flows through the choice.
    Li et al., "DeepGCNs", 2019 (max-relative graph convolution), without its linear map.

    Args:
        x: node features, (B, N, C), floating point.
        k: number of neighbors, 1..M (1..M-1 without `loop`), M being N without `sources`.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may be its own neighbor. Must be True with `sources`.
        mask: (B, N) bool, True where the node exists.
        sources: features s of the candidates, (B, M, C); None for x itself.
        source_mask: (B, M) bool, True where the source exists; with `sources` only.
        bias: (N, M) or (B, N, M), added to the distances; no gradient flows to it.
        dilation: d; of the k * d nearest every d-th is taken, from the nearest on.
        backend: see `aurel.use_backend`.

    Returns:
        The maxima, (B, N, C), 0 where a node is absent or has no neighbor, and the
        neighbors, (B, N, K) int64.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_knn_arguments(x, k, metric, loop, mask, sources, source_mask, bias, dilation)
    if sources is not None:
        x, sources = promote(x, sources)
    impl = knn_backend("knn_max_relative", backend, x, sources, k, dilation)
    bias = None if bias is None else bias.detach()
    requires_grad = x.requires_grad or (sources is not None and sources.requires_grad)
    keep_winner = torch.is_grad_enabled() and requires_grad
    out, neighbors, _ = _knn_max_relative(
        x, sources, bias, mask, source_mask, k, metric, loop, dilation, keep_winner, impl
    )
    return out, neighbors


def _shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, nodes = call.x, (call.x if call.sources is None else call.sources).shape[1]
    neighbors = x.new_empty((*x.shape[:2], call.k), dtype=torch.int64)
    winner = x.new_empty(x.shape if call.keep_winner else (0,), dtype=winner_dtype(nodes))
    return x.new_empty(x.shape), neighbors, winner


def _define(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    neighbors = define_knn_graph(call)
    out = _max_relative(call.x, call.sources, neighbors)
    return out, neighbors, neighbors.new_empty(0, dtype=torch.uint8)


def _backward_shapes(call: Any) -> tuple[Tensor, Tensor]:
    grad = call.grad
    shape = (0,) if call.own else (grad.shape[0], call.nodes, grad.shape[2])
    return grad.new_empty(grad.shape), grad.new_empty(shape)


@operator(shapes=_backward_shapes, definition=None, flops=None, gradient=None)
def _knn_max_relative_backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, own: bool, impl: str
) -> tuple[Tensor, Tensor]:
    wide = at_least_float32(grad)
    grad_x, grad_sources = _gradients(wide, neighbors, winner, nodes, own)
    return grad_x.to(grad.dtype), grad_sources.to(grad.dtype)


def _gradients(
    grad: Tensor, neighbors: Tensor, winner: Tensor, nodes: int, own: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of nodes and of sources; if `own`, the first is the sum of both."""
    grad_x = -grad.masked_fill(without_neighbors(neighbors), 0)
    if own:
        return add_to_winner(grad_x, grad, neighbors, winner), grad.new_empty(0)
    total = grad.new_zeros(grad.shape[0], nodes, grad.shape[2])
    return grad_x, add_to_winner(total, grad, neighbors, winner)


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.own = call.sources is None
    ctx.nodes = (call.x if ctx.own else call.sources).shape[1]
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_x, grad_sources = _knn_max_relative_backward(
        grad, *ctx.saved_tensors, ctx.nodes, ctx.own, ctx.impl
    )
    return grad_x, None if ctx.own else grad_sources, *(None,) * 9


def _backward_in_torch(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    neighbors, winner = ctx.saved_tensors
    grad_x, grad_sources = _gradients(grad, neighbors, winner, ctx.nodes, ctx.own)
    return grad_x, None if ctx.own else grad_sources, *(None,) * 9


@operator(
    shapes=_shapes,
    definition=_define,
    flops=count_knn_flops,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _knn_max_relative(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
    keep_winner: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    source_mask = mask if sources is None else source_mask
    neighbors = select_nearest(x, sources, bias, mask, source_mask, k, metric, loop, dilation)
    best, winner = max_over_neighbors(x if sources is None else sources, neighbors, keep_winner)
    # Subtraction rounds monotonically: max_j (s_j - x_i) is max_j s_j - x_i, bit for bit.
    return (best - x).masked_fill_(without_neighbors(neighbors), 0), neighbors, winner
