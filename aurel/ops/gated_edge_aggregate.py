"""Sum of the values of all nodes, gated channel by channel by the edge from each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import gate_obstacle
from aurel.ops.arguments import check_input, check_mask, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.image_blocks import image_blocks
from aurel.ops.masks import pair_mask
from aurel.ops.precision import wide_dtype
from aurel.ops.registration import Gradient, gradients_of_definition, operator

_BLOCK = 2**17  # edge features computed at a time on a CPU: as many as fit in the cache


def gated_edge_aggregate_reference(
    edge: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Compute `gated_edge_aggregate` by its definition in plain torch."""
    dtype = wide_dtype(values)
    if mask is not None:  # before the sigmoid, whose gradient of NaN is NaN
        edge = edge.where(pair_mask(mask).unsqueeze(-1), 0.0)
    gate, values_of_pairs = edge.to(dtype).sigmoid(), values.to(dtype).unsqueeze(1)
    if mask is not None:
        gate = gate.masked_fill(~mask[:, None, :, None], -torch.inf)
        values_of_pairs = values_of_pairs.where(mask[:, None, :, None], 0.0)
    out = (gate.softmax(2) * values_of_pairs).sum(2)
    if mask is not None:
        out = out.where(mask.unsqueeze(-1), 0.0)
    return out.to(values.dtype)


def gated_edge_aggregate(
    edge: Tensor, values: Tensor, *, mask: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    r"""Aggregate values over all nodes, gated by a softmax of the sigmoid of the edges.

    .. math::
        y_i = \sum_j g_{ij} \odot v_j, \qquad
        g_{ij} = \underset{j}{\mathrm{softmax}}\; \sigma(e_{ij})

    The gate is not kept: the backward pass computes it again. Float32 at least inside.

    Args:
        edge: :math:`e`, (B, N, N, C), the target i before the source j.
        values: :math:`v`, (B, N, C), of the sources.
        mask: (B, N) bool, True where the node exists; absent nodes are not sources, and get zeros.
        backend: see `aurel.use_backend`.

    Returns:
        :math:`y`, (B, N, C), in the common dtype of `edge` and `values`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU). The authors' code also divides the
    sum by N, which is left to the caller.
    """
    check_input("values", values, "B N C")
    batch, nodes, channels = values.shape
    check_input("edge", edge, "B N N C", values, B=batch, N=nodes, C=channels)
    check_mask(mask, values)
    edge, values = promote(edge, values)
    impl = resolve_backend("gated_edge_aggregate", backend, (values,), lambda: gate_obstacle(nodes))
    out: Tensor = _gated_edge_aggregate(edge, values, mask, impl)
    return out


def _blocks(edge: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Yield blocks of images and their masks: on a CPU what fits in the cache, elsewhere all."""
    for block in image_blocks(edge, _BLOCK if edge.device.type == "cpu" else edge.numel()):
        yield block, None if mask is None else mask[block]


def _exp_gate(gate: Tensor, mask: Tensor | None) -> Tensor:
    """Return exp(gate), zero for absent sources; a sigmoid is too small to overflow."""
    weights = gate.exp()
    return weights if mask is None else weights.mul_(mask[:, None, :, None])


def _total(weights: Tensor) -> Tensor:
    """Return the sum over sources, or 1 where there is none: every other sum is larger."""
    return weights.sum(2).clamp_min_(1.0)


def _zero_absent(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x, (B, N, C), with zeros where a node is absent."""
    return x if mask is None else x.where(mask.unsqueeze(-1), 0.0)


def _gates(edge: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sigmoid of the edges, 0 for an absent pair, whose edge may be NaN."""
    gate = edge.sigmoid()
    if mask is None:
        return gate
    return gate.masked_fill_(~pair_mask(mask).unsqueeze(-1), 0.0)


@operator(
    shapes=lambda call: (
        call.edge.new_empty(call.edge.shape),
        call.values.new_empty(call.values.shape),
    ),
    definition=None,
    flops=None,
    gradient=None,
)
def _gated_edge_aggregate_backward(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    dtype = wide_dtype(values)
    grad_edge, grad_values = edge.new_empty(edge.shape), values.new_empty(values.shape)
    for block, block_mask in _blocks(edge, mask):
        gate = _gates(edge[block].to(dtype), block_mask)
        weights = _exp_gate(gate, block_mask)
        weights.div_(_total(weights).unsqueeze(2))
        grad = weights * _zero_absent(grad_out[block].to(dtype), block_mask).unsqueeze(2)
        grad_values[block] = grad.sum(1)
        sources = _zero_absent(values[block].to(dtype), block_mask).unsqueeze(1)
        out = weights.mul_(sources).sum(2, keepdim=True)
        grad.mul_(torch.sub(sources, out, out=weights))
        grad_edge[block] = torch.ops.aten.sigmoid_backward(grad, gate)
    return grad_edge, grad_values


def _save(ctx: Any, call: Any, output: Tensor) -> None:
    ctx.save_for_backward(call.edge, call.values, call.mask)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    return *_gated_edge_aggregate_backward(grad_out, *ctx.saved_tensors, ctx.impl), None, None


def _backward_in_torch(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    edge, values, mask = ctx.saved_tensors
    grads = gradients_of_definition(
        lambda edge, values: (gated_edge_aggregate_reference(edge, values, mask),),
        (edge, values),
        (grad_out,),
    )
    return *grads, None, None


@operator(
    shapes=lambda call: call.values.new_empty(call.values.shape),
    definition=lambda call: gated_edge_aggregate_reference(call.edge, call.values, call.mask),
    flops=None,
    gradient=Gradient(_save, _backward, _backward_in_torch),
)
def _gated_edge_aggregate(edge: Tensor, values: Tensor, mask: Tensor | None, impl: str) -> Tensor:
    dtype = wide_dtype(values)
    out = values.new_empty(values.shape)
    for block, block_mask in _blocks(edge, mask):
        weights = _exp_gate(_gates(edge[block].to(dtype), block_mask), block_mask)
        total = _total(weights)
        weights.mul_(_zero_absent(values[block].to(dtype), block_mask).unsqueeze(1))
        out[block] = _zero_absent(weights.sum(2).div_(total), block_mask)
    return out
