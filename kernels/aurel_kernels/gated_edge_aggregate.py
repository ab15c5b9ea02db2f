"""Sum of node values, gated channel by channel by the edge to each node.

Forward, for edges e (B, N, N, C), values v (B, N, C) and nodes j that exist:
    q_ij = exp(sigmoid(e_ij)), t_i = sum_j q_ij, y_i = sum_j q_ij v_j / t_i.
A sigmoid is at most 1, so the softmax needs no shift by its maximum. Where no node exists, t is
below 1 and counts as 1: y is zero.

Backward, from g = dL/dy, with w_ij = q_ij / t_i:
    dv_j = sum_i w_ij g_i, de_ij = w_ij g_i (v_j - y_i) sigmoid'(e_ij).

The channels know nothing of each other. A forward program owns a target and a strip of channels; a
backward program owns a strip of channels of a whole graph and goes from target to target: all
sources of a target fit into one tile, so edges are read once and their gradients written once, and
dv adds up in registers, in a fixed order, without atomics. Nothing is saved but the inputs: t and y
are found again. Everything is float32 inside. Up to `sizes.MAX_GATED_NODES` nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import launch
from aurel_kernels.sizes import power_of_two


@triton.jit
def gate_tile(edge_ptr, mask_ptr, o_j, o_c, N, C, HAS_MASK: tl.constexpr):
    """Return exp(gate) and gate of one target's edges, [BLOCK_N, BLOCK_C]; exp is 0 if absent."""
    m_j = o_j < N
    b_edge = tl.load(
        edge_ptr + o_j[:, None] * C + o_c[None, :],
        mask=m_j[:, None] & (o_c < C)[None, :],
        other=0.0,
    ).to(tl.float32)
    if HAS_MASK:
        m_j = tl.load(mask_ptr + o_j, mask=m_j, other=0) != 0
    b_gate = tl.sigmoid(b_edge)
    return tl.where(m_j[:, None], tl.exp(b_gate), 0.0), b_gate


@triton.jit
def total(b_weight):
    """Return the sum over sources, 1 where there is none; NaN stays NaN."""
    b_total = tl.sum(b_weight, axis=0)
    return tl.where(b_total < 1.0, 1.0, b_total)


@triton.jit
def forward_kernel(
    edge_ptr,
    value_ptr,
    mask_ptr,
    out_ptr,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one target and a strip of channels."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_j = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    b_weight, _ = gate_tile(
        edge_ptr + i_target * N * C, mask_ptr + i_batch * N, o_j, o_c, N, C, HAS_MASK
    )
    # [BLOCK_N, BLOCK_C]
    b_value = tl.load(
        value_ptr + i_batch * N * C + o_j[:, None] * C + o_c[None, :],
        mask=(o_j < N)[:, None] & m_c[None, :],
        other=0.0,
    ).to(tl.float32)
    b_out = tl.sum(b_weight * b_value, axis=0) / total(b_weight)
    tl.store(out_ptr + i_target * C + o_c, b_out.to(out_ptr.dtype.element_ty), mask=m_c)


@triton.jit
def backward_kernel(
    grad_ptr,
    edge_ptr,
    value_ptr,
    mask_ptr,
    grad_edge_ptr,
    grad_value_ptr,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a strip of channels of one graph."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_j = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    p_node = o_j[:, None] * C + o_c[None, :]
    m_node = (o_j < N)[:, None] & m_c[None, :]
    mask_ptr += i_batch * N
    grad_ptr += i_batch * N * C
    # [BLOCK_N, BLOCK_C]
    b_value = tl.load(value_ptr + i_batch * N * C + p_node, mask=m_node, other=0.0).to(tl.float32)
    b_grad_value = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for i in range(N):
        p_edge = (i_batch * N + i) * N * C
        b_weight, b_gate = gate_tile(edge_ptr + p_edge, mask_ptr, o_j, o_c, N, C, HAS_MASK)
        b_weight = b_weight / total(b_weight)[None, :]
        b_out = tl.sum(b_weight * b_value, axis=0)
        b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)
        b_weight = b_weight * b_grad[None, :]
        b_grad_value += b_weight
        b_grad_edge = b_weight * (b_value - b_out[None, :]) * b_gate * (1.0 - b_gate)
        tl.store(
            grad_edge_ptr + p_edge + p_node,
            b_grad_edge.to(grad_edge_ptr.dtype.element_ty),
            mask=m_node,
        )
    tl.store(
        grad_value_ptr + i_batch * N * C + p_node,
        b_grad_value.to(grad_value_ptr.dtype.element_ty),
        mask=m_node,
    )


def plan(nodes: int) -> dict[str, Any]:
    """Return the launch options: few numbers a thread, or ragged channels make it spill."""
    block_n = power_of_two(nodes)
    block_c = 32 if block_n <= 32 else 16
    return {
        "BLOCK_N": block_n,
        "BLOCK_C": block_c,
        "num_warps": min(16, block_n * block_c // 128),
    }


def forward(edge: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the aggregate, (B, N, C).

    Args:
        edge: (B, N, N, C), target before source; float32, float16 or bfloat16.
        values: (B, N, C), like `edge`.
        mask: (B, N) bool, True where the source exists, or None.
    """
    edge, values = edge.contiguous(), values.contiguous()
    batch, nodes, channels = values.shape
    out = torch.empty_like(values)
    options = plan(nodes)
    launch(
        forward_kernel,
        (batch, nodes, triton.cdiv(channels, options["BLOCK_C"])),
        edge,
        values,
        values if mask is None else mask.contiguous(),
        out,
        nodes,
        channels,
        HAS_MASK=mask is not None,
        **options,
    )
    return out


def backward(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `edge` and `values`; arguments as in `forward`, after (B, N, C)."""
    grad_out, edge, values = grad_out.contiguous(), edge.contiguous(), values.contiguous()
    batch, nodes, channels = values.shape
    grad_edge, grad_values = torch.empty_like(edge), torch.empty_like(values)
    options = plan(nodes)
    launch(
        backward_kernel,
        (batch, triton.cdiv(channels, options["BLOCK_C"])),
        grad_out,
        edge,
        values,
        values if mask is None else mask.contiguous(),
        grad_edge,
        grad_values,
        nodes,
        channels,
        HAS_MASK=mask is not None,
        **options,
    )
    return grad_edge, grad_values


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the table of `plan`, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, masked in (
        (12, 512, torch.float32, False),
        (12, 37, torch.bfloat16, True),
        (27, 37, torch.float32, True),
        (41, 512, torch.float16, False),
        (41, 37, torch.float32, True),
        (68, 37, torch.float32, True),
        (196, 37, torch.float32, True),
    ):
        values = torch.empty(2, nodes, channels, dtype=dtype)
        edge = values.new_empty(2, nodes, nodes, channels)
        mask = values.new_empty((2, nodes), dtype=torch.bool) if masked else None
        yield partial(forward, edge, values, mask)
        yield partial(backward, values, edge, values, mask)
