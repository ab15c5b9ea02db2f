"""Sum of the other nodes' values, gated channel by channel by the edge to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from aurel_kernels.sizes import gate_obstacle
from torch import Tensor

from aurel.ops.arguments import check_device, check_floating, check_mask, check_shape, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.image_blocks import image_blocks
from aurel.ops.triton_support import triton_obstacle

_BLOCK = 2**17  # edge features a pass on a CPU: its scratch stays in the cache


def gated_edge_aggregate_reference(
    edge: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Define `gated_edge_aggregate` in plain torch, for edges and values without NaN."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    gate = edge.to(dtype).sigmoid()
    if mask is not None:
        gate = gate.masked_fill(~mask[:, None, :, None], -torch.inf)
    out = (gate.softmax(2) * values.to(dtype).unsqueeze(1)).sum(2)
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
        mask: (B, N) bool, True where the node exists; absent nodes are no sources, and get zeros.
        backend: see `aurel.ops.backend`.

    Returns:
        :math:`y`, (B, N, C), in the common dtype of `edge` and `values`.

    Raises:
        ValueError: a shape or dtype does not fit.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU). Their code divides the sum by N
    once more, which is left to the caller.
    """
    check_shape("values", values, "B N C")
    batch, nodes, channels = values.shape
    check_shape("edge", edge, "B N N C", B=batch, N=nodes, C=channels)
    check_floating("edge", edge)
    check_floating("values", values)
    check_device("edge", edge, values)
    check_mask(mask, values)
    edge, values = promote(edge, values)
    obstacle = triton_obstacle(values, gate_obstacle(nodes))
    impl = resolve_backend("gated_edge_aggregate", backend, values, obstacle)
    if mask is None:
        return _gated_edge_aggregate(edge, values, None, impl)
    # What lies at an absent node may be NaN, which a zero weight would not remove.
    edge = edge.where((mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(-1), 0.0)
    values = values.where(mask.unsqueeze(-1), 0.0)
    out = _gated_edge_aggregate(edge, values, mask, impl)
    return out.where(mask.unsqueeze(-1), 0.0)


def _blocks(edge: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Yield blocks of images, with their masks: on a CPU what stays in cache, elsewhere all."""
    for block in image_blocks(edge, _BLOCK if edge.device.type == "cpu" else edge.numel()):
        yield block, None if mask is None else mask[block]


def _exp_gate(gate: Tensor, mask: Tensor | None) -> Tensor:
    """Return exp(gate), zero at absent sources; a sigmoid needs no shift by its maximum."""
    weights = gate.exp()
    return weights if mask is None else weights.mul_(mask[:, None, :, None])


def _total(weights: Tensor) -> Tensor:
    """Return the sum over sources; it is below 1 only where there is no source at all."""
    return weights.sum(2).clamp_min_(1.0)


@torch.library.custom_op("aurel::gated_edge_aggregate", mutates_args=())
def _gated_edge_aggregate(edge: Tensor, values: Tensor, mask: Tensor | None, impl: str) -> Tensor:
    if impl == "triton":
        kernels = import_module("aurel_kernels.gated_edge_aggregate")
        return kernels.forward(edge, values, mask)
    dtype = torch.promote_types(values.dtype, torch.float32)
    out = values.new_empty(values.shape)
    for block, part in _blocks(edge, mask):
        weights = _exp_gate(edge[block].to(dtype).sigmoid(), part)
        total = _total(weights)
        weights.mul_(values[block].to(dtype).unsqueeze(1))
        out[block] = weights.sum(2).div_(total)
    return out


@_gated_edge_aggregate.register_fake
def _(edge: Tensor, values: Tensor, mask: Tensor | None, impl: str) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op("aurel::gated_edge_aggregate_backward", mutates_args=())
def _gated_edge_aggregate_backward(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    if impl == "triton":
        kernels = import_module("aurel_kernels.gated_edge_aggregate")
        return kernels.backward(grad_out, edge, values, mask)
    dtype = torch.promote_types(values.dtype, torch.float32)
    grad_edge, grad_values = edge.new_empty(edge.shape), values.new_empty(values.shape)
    for block, part in _blocks(edge, mask):
        gate = edge[block].to(dtype).sigmoid()
        weights = _exp_gate(gate, part)
        weights.div_(_total(weights).unsqueeze(2))
        grad = weights * grad_out[block].to(dtype).unsqueeze(2)
        grad_values[block] = grad.sum(1)
        sources = values[block].to(dtype).unsqueeze(1)
        out = weights.mul_(sources).sum(2, keepdim=True)
        grad.mul_(torch.sub(sources, out, out=weights))
        torch.ops.aten.sigmoid_backward.grad_input(grad, gate, grad_input=grad_edge[block])
    return grad_edge, grad_values


@_gated_edge_aggregate_backward.register_fake
def _(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    return edge.new_empty(edge.shape), values.new_empty(values.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    edge, values, mask, ctx.impl = inputs
    ctx.save_for_backward(edge, values, mask)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = _gated_edge_aggregate_backward(grad_out, *ctx.saved_tensors, ctx.impl)
    return *grads, None, None


_gated_edge_aggregate.register_autograd(_backward, setup_context=_setup_context)
