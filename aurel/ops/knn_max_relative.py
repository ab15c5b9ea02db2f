"""K nearest neighbours and the maximum of their features relative to the node's, in one op."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import at_least_float32
from aurel.ops.gather_reduce import add_to_winner, max_over_neighbors, winner_dtype
from aurel.ops.knn_graph import (
    check_knn_arguments,
    knn_graph_reference,
    knn_obstacle,
    nearest,
)
from aurel.ops.neighbor_aggregate import neighbor_aggregate_reference


def knn_max_relative_reference(
    x: Tensor, k: int, metric: str = "l2", *, loop: bool = True, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `knn_max_relative` does: choose, take the maximum, subtract the node."""
    neighbors = knn_graph_reference(x, k, metric, loop=loop, mask=mask)
    relative = neighbor_aggregate_reference(x, neighbors, "max") - x
    return relative.masked_fill((neighbors < 0).all(2, keepdim=True), 0), neighbors


@torch.library.custom_op("aurel::knn_max_relative", mutates_args=())
def _knn_max_relative(
    x: Tensor,
    mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    keep_winner: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if impl == "triton":
        kernels = import_module("aurel_kernels.knn_max_relative")
        return kernels.forward(x, k, metric, loop, mask, keep_winner)
    x = x.contiguous()
    neighbors = nearest(x, mask, k, metric, loop)
    padded = mask is not None
    best, winner = max_over_neighbors(x, neighbors, padded, keep_winner)
    # Subtraction rounds monotonically: max_j (x_j - x_i) is max_j x_j - x_i, bit for bit.
    out = best.sub_(x)
    if padded:
        out.masked_fill_(neighbors[..., :1] < 0, 0)
    return out, neighbors, winner


@_knn_max_relative.register_fake
def _(
    x: Tensor,
    mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    keep_winner: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    neighbors = x.new_empty((x.shape[0], x.shape[1], k), dtype=torch.int64)
    winner = x.new_empty(x.shape if keep_winner else (0,), dtype=winner_dtype(k))
    return x.new_empty(x.shape), neighbors, winner


@torch.library.custom_op("aurel::knn_max_relative_backward", mutates_args=())
def _knn_max_relative_backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, padded: bool, impl: str
) -> Tensor:
    if impl == "triton":
        kernels = import_module("aurel_kernels.knn_max_relative")
        return kernels.backward(grad, neighbors, winner)
    wide = at_least_float32(grad)
    if padded:
        wide = wide.masked_fill(neighbors[..., :1] < 0, 0)
    total = torch.neg(wide)
    return add_to_winner(total, wide, neighbors, winner, padded).to(grad.dtype)


@_knn_max_relative_backward.register_fake
def _(grad: Tensor, neighbors: Tensor, winner: Tensor, padded: bool, impl: str) -> Tensor:
    return grad.new_empty(grad.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    mask, ctx.impl = inputs[1], inputs[-1]
    ctx.padded = mask is not None
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _knn_max_relative_backward(grad, *ctx.saved_tensors, ctx.padded, ctx.impl)
    return grad_x, None, None, None, None, None, None


_knn_max_relative.register_autograd(_backward, setup_context=_setup_context)


def knn_max_relative(
    x: Tensor,
    k: int,
    metric: str = "l2",
    *,
    loop: bool = True,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Return how far the `k` nearest nodes reach above every node, channel by channel.

    .. math:: y_i = \max_{j \in \mathcal{N}(i)} (x_j - x_i)

    The neighbours are those of `knn_graph`. The gradient goes to the node and, in each channel,
    to the first (nearest) neighbour that attains the maximum; none flows through the choice.
    Li et al., "DeepGCNs", 2019 (max-relative graph convolution), without its linear map.

    Args:
        x: node features, (B, N, C), floating point.
        k: number of neighbours, 1..N (1..N-1 without `loop`).
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        loop: a node may choose itself.
        mask: (B, N) bool, True where the node exists.
        backend: see `aurel.use_backend`.

    Returns:
        The maxima, (B, N, C), 0 where a node is absent or has no neighbour, and the
        neighbours, (B, N, K) int64.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    check_knn_arguments(x, k, metric, loop, mask)
    impl = resolve_backend("knn_max_relative", backend, x, knn_obstacle(x, k))
    keep_winner = torch.is_grad_enabled() and x.requires_grad
    out, neighbors, _ = _knn_max_relative(x, mask, k, metric, loop, keep_winner, impl)
    return out, neighbors
