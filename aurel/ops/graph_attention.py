"""Graph attention on a given graph: leaky-relu scores, softmax over neighbours, weighted sum."""

from __future__ import annotations

from importlib import import_module
from math import isfinite
from typing import Any, Literal, overload

import torch
from aurel_kernels.sizes import attention_obstacle
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.arguments import check_device, check_floating, check_shape, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.precision import without_autocast
from aurel.ops.triton_support import triton_obstacle


def graph_attention_reference(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Define `graph_attention` in plain torch; edges are summed one by one."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    connected = _per_head(adjacency)
    weights = _weights(_pairs(target_score, source_score, dtype), connected, negative_slope)
    messages = weights.unsqueeze(-1) * values.to(dtype).unsqueeze(2)
    out = messages.where(connected.unsqueeze(-1), 0.0).sum(3)
    return out.to(values.dtype), weights.to(values.dtype)


@overload
def graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    *,
    negative_slope: float = 0.2,
    return_weights: Literal[True] = True,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]: ...


@overload
def graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    *,
    negative_slope: float = 0.2,
    return_weights: bool,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]: ...


def graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    *,
    negative_slope: float = 0.2,
    return_weights: bool = True,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    r"""Aggregate neighbours by attention (Velickovic et al. 2018, equations 1 to 4).

    .. math::
        \alpha_{ij} = \underset{j \in \mathcal N(i)}{\mathrm{softmax}}\;
            \mathrm{LeakyReLU}(t_i + s_j), \qquad
        y_i = \sum_{j \in \mathcal N(i)} \alpha_{ij} z_j

    A node with no neighbour gets zeros. A NaN reaches only the nodes that listen to it. Scores
    and softmax are computed in float32 at least. For the backward pass torch keeps the weights; the
    kernels compute them again.

    Args:
        values: :math:`z`, (B, H, N, C), for H heads.
        target_score: :math:`t`, (B, H, N), of the node that listens.
        source_score: :math:`s`, (B, H, N), of the node that is listened to.
        adjacency: (N, N) or (B, N, N); bool, or a number where > 0 is an edge. Row i says to whom
            node i listens. No gradient flows into it.
        negative_slope: of the leaky ReLU.
        return_weights: False gives None for the weights; a kernel then never writes them.
        backend: see `aurel.ops.backend`.

    Returns:
        The aggregate (B, H, N, C) and the weights (B, H, N, N), rows summing to 1 or 0; both in
        the common dtype of `values` and the scores.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    check_shape("values", values, "B H N C")
    batch, heads, nodes, channels = values.shape
    check_floating("values", values)
    for name, score in (("target_score", target_score), ("source_score", source_score)):
        check_shape(name, score, "B H N", B=batch, H=heads, N=nodes)
        check_floating(name, score)
        check_device(name, score, values)
    if adjacency.dim() == 2:
        check_shape("adjacency", adjacency, "N N", N=nodes)
    else:
        check_shape("adjacency", adjacency, "B N N", B=batch, N=nodes)
    check_device("adjacency", adjacency, values)
    tensors = promote(values, target_score, source_score)
    obstacle = triton_obstacle(tensors[0], attention_obstacle(nodes, channels))
    impl = resolve_backend("graph_attention", backend, values, obstacle)
    connected = adjacency if adjacency.dtype == torch.bool else adjacency > 0
    out, weights = _graph_attention(
        *tensors, connected, float(negative_slope), return_weights, impl
    )
    return out, weights.to(out.dtype) if return_weights else None


def _per_head(adjacency: Tensor) -> Tensor:
    """Return the bool edges as (B or 1, 1, N, N)."""
    connected = adjacency if adjacency.dtype == torch.bool else adjacency > 0
    return connected.unsqueeze(-3) if connected.dim() == 3 else connected[None, None]


def _pairs(target_score: Tensor, source_score: Tensor, dtype: torch.dtype) -> Tensor:
    """Return t_i + s_j, (B, H, N, N)."""
    return target_score.to(dtype).unsqueeze(-1) + source_score.to(dtype).unsqueeze(-2)


def _weights(pre: Tensor, connected: Tensor, negative_slope: float) -> Tensor:
    scores = F.leaky_relu(pre, negative_slope).masked_fill(~connected, -torch.inf)
    # A row without edges is NaN after the softmax; the second mask makes it zero.
    return scores.softmax(-1).masked_fill(~connected, 0.0)


def _weights_if_finite(pre: Tensor, connected: Tensor, negative_slope: float) -> Tensor:
    """Return `_weights`, or NaN for a row without edges or with a score that is not finite."""
    bias = 1 - connected.to(pre.dtype).reciprocal_()  # 0 or -inf, several times faster than where
    return F.leaky_relu(pre, negative_slope).add_(bias).softmax(-1)


def _is_finite(x: Tensor) -> bool:
    """Return whether all is finite, as its sum tells on a CPU; elsewhere nobody waits for it."""
    return x.device.type == "cpu" and isfinite(x.sum())


def _weighted_sum(weights: Tensor, connected: Tensor, values: Tensor) -> Tensor:
    """Return weights @ values, where a value that is not finite reaches connected rows only."""
    finite = values.isfinite()
    reached = connected.to(values.dtype) @ (~finite).to(values.dtype)
    return (weights @ values.where(finite, 0.0)).masked_fill(reached > 0, torch.nan)


def _gradients(
    grad_each: Tensor, weights: Tensor, pre: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """Return the gradients of both scores, from that of the weights."""
    grad = torch.ops.aten._softmax_backward_data(grad_each, weights, -1, pre.dtype)
    grad = torch.ops.aten.leaky_relu_backward(grad, pre, negative_slope, False)
    return grad.sum(-1), grad.sum(-2)


@torch.library.custom_op("aurel::graph_attention", mutates_args=())
def _graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    if impl == "triton":
        kernels = import_module("aurel_kernels.graph_attention")
        return kernels.forward(
            values, target_score, source_score, adjacency, negative_slope, return_weights
        )
    dtype = torch.promote_types(values.dtype, torch.float32)
    connected = _per_head(adjacency)
    pre, wide = _pairs(target_score, source_score, dtype), values.to(dtype)
    with without_autocast(values):
        weights = _weights_if_finite(pre, connected, negative_slope)
        out = weights @ wide
        if not _is_finite(out):
            weights = _weights(pre, connected, negative_slope)
            out = _weighted_sum(weights, connected, wide)
    return out.to(values.dtype), weights


@_graph_attention.register_fake
def _(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    batch, heads, nodes, _ = values.shape
    if impl == "torch":
        wide = torch.promote_types(values.dtype, torch.float32)
        weights = values.new_empty((batch, heads, nodes, nodes), dtype=wide)
    else:
        weights = values.new_empty((batch, heads, nodes, nodes) if return_weights else (0,))
    return values.new_empty(values.shape), weights


@torch.library.custom_op("aurel::graph_attention_backward", mutates_args=())
def _graph_attention_backward(
    grad_out: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    weights: Tensor | None,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if impl == "triton":
        kernels = import_module("aurel_kernels.graph_attention")
        return kernels.backward(
            grad_out,
            grad_weights if return_weights else None,
            values,
            target_score,
            source_score,
            adjacency,
            negative_slope,
        )
    assert weights is not None
    dtype = weights.dtype
    pre, grad = _pairs(target_score, source_score, dtype), grad_out.to(dtype)
    with without_autocast(values):
        grad_each = grad @ values.to(dtype).mT
        if return_weights:
            grad_each += grad_weights
        grad_target, grad_source = _gradients(grad_each, weights, pre, negative_slope)
        # Whatever is not finite, in values, scores or gradients, has come here by now.
        if _is_finite(grad_target):
            grad_values = weights.mT @ grad
        else:
            connected = _per_head(adjacency)
            grad_values = _weighted_sum(weights.mT, connected.mT, grad)
            grad_each = grad_each.masked_fill_(~connected, 0.0)
            grad_target, grad_source = _gradients(grad_each, weights, pre, negative_slope)
    return (
        grad_values.to(values.dtype),
        grad_target.to(target_score.dtype),
        grad_source.to(source_score.dtype),
    )


@_graph_attention_backward.register_fake
def _(
    grad_out: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    weights: Tensor | None,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        values.new_empty(values.shape),
        target_score.new_empty(target_score.shape),
        source_score.new_empty(source_score.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.negative_slope, ctx.return_weights, ctx.impl = inputs
    ctx.save_for_backward(*tensors, output[1] if ctx.impl == "torch" else None)


def _backward(ctx: Any, grad_out: Tensor, grad_weights: Tensor) -> tuple[Tensor | None, ...]:
    grads = _graph_attention_backward(
        grad_out,
        grad_weights,
        *ctx.saved_tensors,
        ctx.negative_slope,
        ctx.return_weights,
        ctx.impl,
    )
    return *grads, None, None, None, None


_graph_attention.register_autograd(_backward, setup_context=_setup_context)
