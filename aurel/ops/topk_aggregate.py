"""Graph convolution over the K best scores of every node, normalized by degree."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import graph_obstacle, ties_obstacle
from aurel.ops.arguments import check_choice, check_input
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.distances import at_least_float32, pairwise_scores, pairwise_scores_reference
from aurel.ops.gather_reduce import sum_over_neighbors, sum_over_neighbors_backward
from aurel.ops.knn_graph import check_knn_arguments, knn_graph_reference
from aurel.ops.neighbor_aggregate import neighbor_aggregate_reference
from aurel.ops.registration import Gradient, operator
from aurel.ops.selection import exclude, select_nearest, select_nearest_reference

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
    """Compute `topk_aggregate` by its definition: a mean, or a product with the adjacency."""
    neighbors = knn_graph_reference(x, k, metric, mask=mask)
    if ties == "exact":
        return neighbor_aggregate_reference(values, neighbors, "mean"), neighbors
    scores = exclude(pairwise_scores_reference(x.detach(), metric), True, mask, mask)
    weights = _normalized_adjacency(scores, neighbors)
    messages = weights.unsqueeze(-1) * at_least_float32(values).unsqueeze(1)
    # A value of weight 0 adds nothing, not even NaN.
    out = messages.where(weights.unsqueeze(-1) > 0, 0.0).sum(2)
    return out.to(values.dtype), neighbors


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
    loops, so that Y is the mean over the `k` neighbors. With ``ties="all"`` it holds every j
    whose score is no worse than the `k`-th best, and the degrees on both sides are row sums:
    the code that the authors of ME-GraphAU (Luo et al., IJCAI 2022, section 3.1) released.
    The node itself is a candidate, too. No gradient flows to `x`.

    Args:
        x: node features that are compared, (B, N, C), floating point.
        values: node features that are averaged, (B, N, C'), floating point.
        k: number of neighbors, 1..N.
        metric: "dot" (the largest products), "cosine", "l1" or "l2", as in `knn_graph`.
        ties: "exact" or "all".
        mask: (B, N) bool, True where the node exists.
        backend: see `aurel.use_backend`.

    Returns:
        Y, (B, N, C'), in the dtype of `values`, 0 for absent nodes; and the neighbors,
        (B, N, K) int64, exactly `k` (-1 for none) under both settings of `ties`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_knn_arguments(x, k, metric, True, mask)
    check_input("values", values, "B N C", x, B=x.shape[0], N=x.shape[1])
    check_choice("ties", ties, TIES)
    impl = resolve_backend(
        "topk_aggregate",
        backend,
        (x, values),
        lambda: (
            graph_obstacle(x.shape[1], max(x.shape[2], values.shape[2]), k)
            or ties_obstacle(x.shape[1], ties)
        ),
    )
    x = x.detach() if x.requires_grad else x
    out, neighbors, _ = _topk_aggregate(x, values, mask, k, metric, ties, impl)
    return out, neighbors


def _normalized_adjacency(scores: Tensor, neighbors: Tensor) -> Tensor:
    """Return D^-1/2 A D^-1/2, (B, N, N), with A = [score no worse than the K-th neighbor's]."""
    last = neighbors[..., -1:]
    threshold = scores.gather(2, last.clamp_min(0)).masked_fill(last < 0, torch.inf)
    adjacency = (scores <= threshold).to(scores.dtype)
    scale = adjacency.sum(-1).clamp_min(1).rsqrt()
    return scale[:, :, None] * adjacency * scale[:, None]


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Return weights @ values, (B, N, C), where a value of weight 0 adds nothing, not even NaN."""
    values = at_least_float32(values).to(weights.dtype)
    total = torch.bmm(weights, values.where(values.isfinite(), 0.0))

    def reached_by(special: Tensor) -> Tensor:
        return torch.bmm(weights, special.to(weights.dtype)) > 0

    plus, minus = reached_by(values == torch.inf), reached_by(values == -torch.inf)
    total = total.masked_fill(plus, torch.inf).masked_fill(minus, -torch.inf)
    return total.masked_fill(reached_by(values.isnan()) | (plus & minus), torch.nan)


def _shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, nodes, _ = call.x.shape
    neighbors = call.x.new_empty((batch, nodes, call.k), dtype=torch.int64)
    shape = (batch, nodes, nodes) if call.ties == "all" else (0,)
    weights = at_least_float32(call.x).new_empty(shape)
    return call.values.new_empty(call.values.shape), neighbors, weights


def _define(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, neighbors = topk_aggregate_reference(
        call.x, call.values, call.k, call.metric, ties=call.ties, mask=call.mask
    )
    return out, neighbors, out.new_empty(0)


def _count_flops(call: Any) -> int:
    """Count the products of pairs of nodes, and of adjacency and values; `call` holds shapes."""
    batch, nodes, channels = call.x
    scores = 0 if call.metric == "l1" else 2 * batch * nodes * nodes * channels
    average = 2 * batch * nodes * nodes * call.values[2] if call.ties == "all" else 0
    return int(scores + average)


@operator(
    shapes=lambda call: call.grad.new_empty(call.grad.shape),
    definition=None,
    flops=None,
    gradient=None,
)
def _topk_aggregate_backward(
    grad: Tensor, neighbors: Tensor, weights: Tensor, ties: str, impl: str
) -> Tensor:
    if ties == "exact":
        return sum_over_neighbors_backward(grad, neighbors, grad.shape[1], mean=True)
    return _weighted_sum(weights.mT, grad).to(grad.dtype)


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.ties = call.ties
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_values = _topk_aggregate_backward(grad, *ctx.saved_tensors, ctx.ties, ctx.impl)
    return None, grad_values, *(None,) * 5


def _backward_in_torch(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    neighbors, weights = ctx.saved_tensors
    if ctx.ties == "exact":
        grad_values = sum_over_neighbors_backward(grad, neighbors, grad.shape[1], mean=True)
    else:
        grad_values = _weighted_sum(weights.mT, grad).to(grad.dtype)
    return None, grad_values, *(None,) * 5


@operator(
    shapes=_shapes,
    definition=_define,
    flops=_count_flops,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _topk_aggregate(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: str, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    if ties == "exact":
        neighbors = select_nearest(x, None, None, mask, mask, k, metric, True, 1)
        out = sum_over_neighbors(values, neighbors, mean=True)
        return out, neighbors, at_least_float32(x).new_empty(0)
    scores = exclude(pairwise_scores(x, metric), True, mask, mask)
    neighbors = select_nearest_reference(scores, k)
    weights = _normalized_adjacency(scores, neighbors)
    return _weighted_sum(weights, values).to(values.dtype), neighbors, weights
