"""Graph attention on a given graph: leaky-relu scores, softmax over neighbors, weighted sum."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.kernels.triton.sizes import attention_obstacle
from aurel.ops.arguments import (
    check_bool,
    check_device,
    check_input,
    check_number,
    check_shape,
    check_tensor,
    promote,
)
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.precision import wide_dtype
from aurel.ops.registration import Gradient, gradients_of_definition, operator


def graph_attention_reference(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Compute `graph_attention` by its definition in plain torch, a sum over edges."""
    dtype = wide_dtype(values)
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
    r"""Aggregate neighbors by attention (Velickovic et al. 2018, equations 1 to 4).

    .. math::
        \alpha_{ij} = \underset{j \in \mathcal N(i)}{\mathrm{softmax}}\;
            \mathrm{LeakyReLU}(t_i + s_j), \qquad
        y_i = \sum_{j \in \mathcal N(i)} \alpha_{ij} z_j

    A node with no neighbor gets zeros. A value that is not finite reaches only the targets of its
    edges, as in a sum over edges. Scores and softmax are computed in float32 at least. The
    backward pass computes the weights again.

    Args:
        values: :math:`z`, (B, H, N, C), for H heads.
        target_score: :math:`t`, (B, H, N), of the target i, which receives the messages.
        source_score: :math:`s`, (B, H, N), of the source j, which sends them.
        adjacency: (N, N) or (B, N, N); bool, or a number where > 0 is an edge. Row i holds
            the sources of node i. No gradient flows into it.
        negative_slope: of the leaky ReLU.
        return_weights: if False, the weights are None, and kernels do not write them.
        backend: see `aurel.use_backend`.

    Returns:
        The aggregate (B, H, N, C) and the weights (B, H, N, N), rows summing to 1 or 0; both in
        the common dtype of `values` and the scores.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    _check_arguments(values, target_score, source_score, adjacency)
    check_number("negative_slope", negative_slope)
    check_bool("return_weights", return_weights)
    nodes, channels = values.shape[2:]
    tensors = promote(values, target_score, source_score)
    impl = resolve_backend(
        "graph_attention", backend, tensors[:1], lambda: attention_obstacle(nodes, channels)
    )
    connected = adjacency if adjacency.dtype == torch.bool else adjacency > 0
    out, weights = _graph_attention(
        *tensors, connected, float(negative_slope), return_weights, impl
    )
    return out, weights if return_weights else None


def _check_arguments(
    values: Tensor, target_score: Tensor, source_score: Tensor, adjacency: Tensor
) -> None:
    """Raise ValueError or TypeError unless these tensors fit together."""
    check_input("values", values, "B H N C")
    batch, heads, nodes, _ = values.shape
    check_input("target_score", target_score, "B H N", values, B=batch, H=heads, N=nodes)
    check_input("source_score", source_score, "B H N", values, B=batch, H=heads, N=nodes)
    check_tensor("adjacency", adjacency)
    if adjacency.dim() == 2:
        check_shape("adjacency", adjacency, "N N", N=nodes)
    else:
        check_shape("adjacency", adjacency, "B N N", B=batch, N=nodes)
    check_device("adjacency", adjacency, values)


def _per_head(adjacency: Tensor) -> Tensor:
    """Return the bool edges as (B or 1, 1, N, N)."""
    connected = adjacency if adjacency.dtype == torch.bool else adjacency > 0
    return connected.unsqueeze(-3) if connected.dim() == 3 else connected[None, None]


def _pairs(target_score: Tensor, source_score: Tensor, dtype: torch.dtype) -> Tensor:
    """Return t_i + s_j, (B, H, N, N)."""
    return target_score.to(dtype).unsqueeze(-1) + source_score.to(dtype).unsqueeze(-2)


def _weights(pairs: Tensor, connected: Tensor, negative_slope: float) -> Tensor:
    """Return the softmax over sources of the leaky ReLU of `pairs`, 0 without an edge."""
    scores = F.leaky_relu(pairs, negative_slope).masked_fill(~connected, -torch.inf)
    # A row without edges is NaN after the softmax; the second mask makes it zero.
    return scores.softmax(-1).masked_fill(~connected, 0.0)


def _weighted_sum(weights: Tensor, connected: Tensor, values: Tensor) -> Tensor:
    """Return weights @ values with the infinities and NaN of a sum over edges alone.

    Args:
        weights: (B, H, N, N), 0 without an edge.
        connected: (B or 1, 1, N, N) bool.
        values: (B, H, N, C).
    """
    out = weights @ values
    # Only on a CPU is it cheap to test whether all values are finite.
    if out.device.type == "cpu" and isfinite(out.sum()):
        return out
    dtype = values.dtype
    finite = weights @ values.where(values.isfinite(), 0.0)
    positive = (weights > 0).to(dtype)
    plus = positive @ (values == torch.inf).to(dtype) > 0
    minus = positive @ (values == -torch.inf).to(dtype) > 0
    zero = (connected & ~(weights > 0)).to(dtype)
    undefined = connected.to(dtype) @ values.isnan().to(dtype) + zero @ values.isinf().to(dtype)
    total = finite.masked_fill(plus, torch.inf).masked_fill(minus, -torch.inf)
    return total.masked_fill((plus & minus) | (undefined > 0) | finite.isnan(), torch.nan)


def _shapes(call: Any) -> tuple[Tensor, Tensor]:
    batch, heads, nodes, _ = call.values.shape
    shape = (batch, heads, nodes, nodes) if call.return_weights else (0,)
    return call.values.new_empty(call.values.shape), call.values.new_empty(shape)


def _define(call: Any) -> tuple[Tensor, Tensor]:
    out, weights = graph_attention_reference(
        call.values, call.target_score, call.source_score, call.adjacency, call.negative_slope
    )
    return out, weights if call.return_weights else weights.new_empty(0)


def _count_flops(call: Any) -> int:
    """Count the products of weights and values; `call` holds shapes."""
    batch, heads, nodes, channels = call.values
    return int(2 * batch * heads * nodes * nodes * channels)


@operator(
    shapes=lambda call: tuple(
        each.new_empty(each.shape) for each in (call.values, call.target_score, call.source_score)
    ),
    definition=None,
    flops=None,
    gradient=None,
)
def _graph_attention_backward(
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = wide_dtype(values)
    connected = _per_head(adjacency)
    pairs = _pairs(target_score, source_score, dtype)
    weights = _weights(pairs, connected, negative_slope)
    grad_each = torch.zeros_like(weights) if grad_weights is None else grad_weights.to(dtype)
    grad_values = torch.zeros_like(values)
    if grad_out is not None:
        grad = grad_out.to(dtype)
        grad_each = grad_each + grad @ values.to(dtype).mT
        grad_values = _weighted_sum(weights.mT, connected.mT, grad).to(values.dtype)
    grad_each = grad_each.masked_fill(~connected, 0.0)
    grad_pairs = torch.ops.aten._softmax_backward_data(grad_each, weights, -1, dtype)
    grad_pairs = torch.ops.aten.leaky_relu_backward(grad_pairs, pairs, negative_slope, False)
    return (
        grad_values,
        grad_pairs.sum(-1).to(target_score.dtype),
        grad_pairs.sum(-2).to(source_score.dtype),
    )


def _save(ctx: Any, call: Any, output: tuple[Tensor, Tensor]) -> None:
    ctx.negative_slope, ctx.return_weights = call.negative_slope, call.return_weights
    ctx.save_for_backward(call.values, call.target_score, call.source_score, call.adjacency)


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_weights: Tensor | None
) -> tuple[Tensor | None, ...]:
    grad_weights = grad_weights if ctx.return_weights else None
    grads = _graph_attention_backward(
        grad_out, grad_weights, *ctx.saved_tensors, ctx.negative_slope, ctx.impl
    )
    return *grads, None, None, None, None


def _backward_in_torch(
    ctx: Any, grad_out: Tensor | None, grad_weights: Tensor | None
) -> tuple[Tensor | None, ...]:
    *inputs, adjacency = ctx.saved_tensors
    grads = gradients_of_definition(
        lambda z, t, s: graph_attention_reference(z, t, s, adjacency, ctx.negative_slope),
        inputs,
        (grad_out, grad_weights if ctx.return_weights else None),
    )
    return *grads, None, None, None, None


@operator(
    shapes=_shapes,
    definition=_define,
    flops=_count_flops,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    dtype = wide_dtype(values)
    connected = _per_head(adjacency)
    weights = _weights(_pairs(target_score, source_score, dtype), connected, negative_slope)
    out = _weighted_sum(weights, connected, values.to(dtype)).to(values.dtype)
    return out, weights.to(values.dtype) if return_weights else out.new_empty(0)
