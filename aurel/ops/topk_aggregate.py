"""Graph convolution over the K best scores of every node, normalised by degree."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch
from aurel_kernels.sizes import graph_obstacle, ties_obstacle
from torch import Tensor

from aurel.ops.arguments import check_choice, check_device, check_floating, check_shape
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import at_least_float32, pairwise_scores, pairwise_scores_reference
from aurel.ops.gather_reduce import sum_over_neighbors, sum_over_neighbors_backward
from aurel.ops.knn_graph import check_knn_arguments, knn_graph_reference, knn_obstacle
from aurel.ops.neighbor_aggregate import neighbor_aggregate_reference
from aurel.ops.precision import without_autocast
from aurel.ops.selection import exclude, select_nearest
from aurel.ops.triton_support import triton_obstacle

Ties = Literal["exact", "all"]
TIES = ("exact", "all")


def topk_aggregate_reference(
    x: Tensor,
    values: Tensor,
    k: int,
    metric: str = "dot",
    *,
    ties: Ties = "exact",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what `topk_aggregate` does: a mean, or a product with the normalised adjacency."""
    neighbors = knn_graph_reference(x, k, metric, mask=mask)
    if ties == "exact":
        return neighbor_aggregate_reference(values, neighbors, "mean"), neighbors
    scores = exclude(pairwise_scores_reference(x.detach(), metric), True, mask)
    weights = _normalized_adjacency(scores, neighbors)
    return (weights @ at_least_float32(values)).to(values.dtype), neighbors


def _normalized_adjacency(scores: Tensor, neighbors: Tensor) -> Tensor:
    """Return D^-1/2 A D^-1/2, (B, N, N), with A = [score no worse than the K-th neighbour's]."""
    last = neighbors[..., -1:]
    threshold = scores.gather(2, last.clamp_min(0)).masked_fill(last < 0, torch.inf)
    adjacency = (scores <= threshold).to(scores.dtype)
    scale = adjacency.sum(-1).clamp_min(1).rsqrt()
    return scale[:, :, None] * adjacency * scale[:, None]


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Return weights @ values, (B, N, C), where a weight of 0 silences even NaN."""
    values = at_least_float32(values).to(weights.dtype)
    with without_autocast(values):
        # Only on a CPU is it cheap to look whether there is anything to silence.
        if values.device.type == "cpu" and bool(values.sum().isfinite()):
            return torch.bmm(weights, values)
        total = torch.bmm(weights, values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
        spoiled = torch.bmm(weights, (~values.isfinite()).to(weights.dtype))
        return total.masked_fill(spoiled > 0, torch.nan)


def topk_obstacle(x: Tensor, values: Tensor, k: int, ties: str) -> str | None:
    """Return why Triton cannot serve this call, or None if it can."""
    sizes = graph_obstacle(values.shape[1], values.shape[2], k)
    return knn_obstacle(x, k) or triton_obstacle(values, sizes, ties_obstacle(x.shape[1], ties))


@torch.library.custom_op("aurel::topk_aggregate", mutates_args=())
def _topk_aggregate(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: str, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    if impl == "triton":
        kernels = import_module("aurel_kernels.topk_aggregate")
        return kernels.forward(x, values, k, metric, ties, mask)
    scores = exclude(pairwise_scores(x, metric, mask), True, mask)
    neighbors = select_nearest(scores, k)
    if ties == "exact":
        out = sum_over_neighbors(values, neighbors, mask is not None, mean=True)
        return out, neighbors, scores.new_empty(0)
    weights = _normalized_adjacency(scores, neighbors)
    return _weighted_sum(weights, values).to(values.dtype), neighbors, weights


@_topk_aggregate.register_fake
def _(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: str, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    batch, nodes, _ = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    shape = (batch, nodes, nodes) if ties == "all" else (0,)
    weights = at_least_float32(x).new_empty(shape)
    return values.new_empty(values.shape), neighbors, weights


@torch.library.custom_op("aurel::topk_aggregate_backward", mutates_args=())
def _topk_aggregate_backward(
    grad: Tensor, neighbors: Tensor, weights: Tensor, padded: bool, ties: str, impl: str
) -> Tensor:
    if impl == "triton":
        kernels = import_module("aurel_kernels.topk_aggregate")
        return kernels.backward(grad, neighbors, weights, ties)
    if ties == "exact":
        return sum_over_neighbors_backward(grad, neighbors, padded, mean=True)
    return _weighted_sum(weights.mT, grad).to(grad.dtype)


@_topk_aggregate_backward.register_fake
def _(
    grad: Tensor, neighbors: Tensor, weights: Tensor, padded: bool, ties: str, impl: str
) -> Tensor:
    return grad.new_empty(grad.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, _, mask, _, _, ctx.ties, ctx.impl = inputs
    ctx.padded = mask is not None
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_values = _topk_aggregate_backward(grad, *ctx.saved_tensors, ctx.padded, ctx.ties, ctx.impl)
    return None, grad_values, None, None, None, None, None


_topk_aggregate.register_autograd(_backward, setup_context=_setup_context)


def topk_aggregate(
    x: Tensor,
    values: Tensor,
    k: int,
    metric: str = "dot",
    *,
    ties: Ties = "exact",
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Average `values` over the `k` nodes with the best scores of `x`.

    .. math:: Y = D^{-1/2} A D^{-1/2} V, \qquad D_{ii} = \textstyle\sum_j A_{ij}

    With ``ties="exact"`` every row of A holds exactly `k` ones, those of `knn_graph` with
    loops, so that Y is the mean over the `k` neighbours. With ``ties="all"`` it holds every j
    whose score is no worse than the `k`-th best, and the degrees on both sides are row sums:
    the code that the authors of ME-GraphAU (Luo et al., IJCAI 2022, section 3.1) released.
    A node itself competes like any other. No gradient flows to `x`.

    Args:
        x: node features that are compared, (B, N, C), floating point.
        values: node features that are averaged, (B, N, C'), floating point.
        k: number of neighbours, 1..N.
        metric: "dot" (the largest products), "cosine", "l1" or "l2", as in `knn_graph`.
        ties: "exact" or "all".
        mask: (B, N) bool, True where the node exists.
        backend: see `aurel.use_backend`.

    Returns:
        Y, (B, N, C'), in the dtype of `values`, 0 for absent nodes; and the neighbours,
        (B, N, K) int64, exactly `k` (-1 for none) under both settings of `ties`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    check_knn_arguments(x, k, metric, True, mask)
    check_shape("values", values, "B N C", B=x.shape[0], N=x.shape[1])
    check_floating("values", values)
    check_device("values", values, x)
    check_choice("ties", ties, TIES)
    obstacle = topk_obstacle(x, values, k, ties)
    impl = resolve_backend("topk_aggregate", backend, x, obstacle)
    out, neighbors, _ = _topk_aggregate(x.detach(), values, mask, k, metric, ties, impl)
    return out, neighbors
