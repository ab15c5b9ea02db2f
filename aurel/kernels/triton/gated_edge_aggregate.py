"""Sum of node values, gated channel by channel by the edge to each node.

Forward, for edges e (B, N, N, C), values v (B, N, C) and nodes j that exist:
    q_ij = exp(sigmoid(e_ij)), t_i = sum_j q_ij, y_i = sum_j q_ij v_j / t_i.
A sigmoid is at most 1, so the softmax needs no shift by its maximum. Where no node exists, t is
below 1 and counts as 1: y is zero.

Backward, from g = dL/dy, with w_ij = q_ij / t_i:
    dv_j = sum_i w_ij g_i, de_ij = w_ij g_i (v_j - y_i) sigmoid'(e_ij).

Channels are independent. A forward program owns a target and a strip of channels, with four
channels a thread, and goes over the sources: every edge is read once, and no sum crosses
threads. A backward program owns a strip of channels of a whole graph and goes over the targets:
all sources of a target fit into one tile, so edges are read once, their gradients are written once,
and dv is summed in registers, in a fixed order, without atomics.

Absent nodes are not read: no edge from or to them, no value, no gradient. Only the inputs are
saved, and everything is float32 inside. Backward, C is a compile-time constant: addresses of ragged
rows then cost no registers. Up to `sizes.MAX_GATED_NODES` nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.sizes import power_of_two


@triton.jit
def sigmoid(b_edge):
    """Return the sigmoid by a reciprocal square root, which takes one instruction."""
    b_root = tl.rsqrt(1.0 + tl.exp(-b_edge))
    return b_root * b_root


@triton.jit
def exp_of_gate(b_gate):
    """Return exp on [0, 1], by a polynomial with a relative error of 1.1e-7 at most.

    The hardware unit for special functions, which `sigmoid` uses twice, is the bottleneck.
    """
    b_out = b_gate * 0.0022720648 + 0.00706467498
    b_out = b_out * b_gate + 0.0425258726
    b_out = b_out * b_gate + 0.16637598
    b_out = b_out * b_gate + 0.500045776
    b_out = b_out * b_gate + 0.999997377
    return b_out * b_gate + 1.0


@triton.jit
def node_exists(mask_ptr, i_node, HAS_MASK: tl.constexpr):
    """Return whether one node exists."""
    exists = i_node >= 0
    if HAS_MASK:
        exists = tl.load(mask_ptr + i_node) != 0
    return exists


@triton.jit
def forward_kernel(
    edge_ptr,
    value_ptr,
    mask_ptr,
    out_ptr,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one target and a strip of channels."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    p_edge = edge_ptr + i_target * N * C + o_c
    p_value = value_ptr + i_batch * N * C + o_c
    m_target = m_c & node_exists(mask_ptr, i_target, HAS_MASK)
    b_total = tl.zeros((BLOCK_C,), tl.float32)
    b_out = tl.zeros((BLOCK_C,), tl.float32)
    for j in tl.range(0, N, loop_unroll_factor=4):
        exists = node_exists(mask_ptr, i_batch * N + j, HAS_MASK)
        m_edge = m_target & exists
        b_edge = tl.load(p_edge + j * C, mask=m_edge, other=0.0).to(tl.float32)
        b_value = tl.load(p_value + j * C, mask=m_edge, other=0.0).to(tl.float32)
        b_weight = exp_of_gate(sigmoid(b_edge))
        if HAS_MASK:
            b_weight = tl.where(exists, b_weight, 0.0)
        b_total += b_weight
        b_out += b_weight * b_value
    b_out = b_out / tl.where(b_total < 1.0, 1.0, b_total)  # NaN stays NaN
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
    C: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a strip of channels of one graph."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_j = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    m_node = (o_j < N)[:, None] & m_c[None, :]
    m_source = (o_j < N)[:, None]
    mask_ptr += i_batch * N
    if HAS_MASK:
        m_source = m_source & (tl.load(mask_ptr + o_j, mask=o_j < N, other=0) != 0)[:, None]
    m_value = m_source & m_c[None, :]
    p_node = o_j[:, None] * C + o_c[None, :]
    # [BLOCK_N, BLOCK_C]
    b_value = tl.load(value_ptr + i_batch * N * C + p_node, mask=m_value, other=0.0).to(tl.float32)
    b_grad_value = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    grad_ptr += i_batch * N * C + o_c
    p_edge = edge_ptr + i_batch * N * N * C + p_node
    p_grad_edge = grad_edge_ptr + i_batch * N * N * C + p_node
    for i in range(N):
        exists = node_exists(mask_ptr, i, HAS_MASK)
        b_gate = sigmoid(tl.load(p_edge, mask=m_value & exists, other=0.0).to(tl.float32))
        b_weight = tl.where(m_source, exp_of_gate(b_gate), 0.0)
        b_total = tl.sum(b_weight, axis=0)
        b_out = tl.sum(b_weight * b_value, axis=0)
        b_scale = 1.0 / tl.where(b_total < 1.0, 1.0, b_total)
        b_grad = tl.load(grad_ptr + i * C, mask=m_c & exists, other=0.0).to(tl.float32)
        b_weight = b_weight * (b_grad * b_scale)[None, :]
        b_grad_value += b_weight
        b_grad_edge = b_weight * (b_value - (b_out * b_scale)[None, :])
        b_grad_edge = b_grad_edge * (b_gate - b_gate * b_gate)
        tl.store(p_grad_edge, b_grad_edge.to(grad_edge_ptr.dtype.element_ty), mask=m_node)
        p_edge += N * C
        p_grad_edge += N * C
    tl.store(
        grad_value_ptr + i_batch * N * C + p_node,
        b_grad_value.to(grad_value_ptr.dtype.element_ty),
        mask=m_node,
    )


def strip(channels: int) -> dict[str, Any]:
    """Return the launch options of the forward kernel: four channels a thread."""
    block_c = 128 if channels <= 128 else 256
    return {"BLOCK_C": block_c, "num_warps": block_c // 128}


def whole_graph(nodes: int) -> dict[str, Any]:
    """Return the launch options of the backward kernel: eight edges a thread."""
    block_n = power_of_two(nodes)
    block_c = 32 if block_n <= 64 else 16 if block_n <= 128 else 8
    return {"BLOCK_N": block_n, "BLOCK_C": block_c, "num_warps": block_n * block_c // 256}


def forward(edge: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the aggregate, (B, N, C), zero where the target is absent.

    Args:
        edge: (B, N, N, C), target before source; float32, float16 or bfloat16.
        values: (B, N, C), of any such dtype.
        mask: (B, N) bool, True where the node exists, or None.
    """
    edge, values = edge.contiguous(), values.contiguous()
    batch, nodes, channels = values.shape
    out = torch.empty_like(values)
    launch = forward_plan(batch, nodes, channels, mask is not None)
    launch(edge, values, values if mask is None else mask.contiguous(), out)
    return out


@lru_cache(PLANS)
def forward_plan(batch: int, nodes: int, channels: int, masked: bool) -> Launch:
    """Return the launch of the forward kernel."""
    options = strip(channels)
    grid = (batch, nodes, cdiv(channels, options["BLOCK_C"]))
    return Launch(forward_kernel, grid, (nodes, channels), HAS_MASK=masked, **options)


def backward(
    grad_out: Tensor, edge: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `edge` and `values`, zero where a node is absent.

    Args:
        grad_out: (B, N, C).
        edge: (B, N, N, C), as in `forward`.
        values: (B, N, C), as in `forward`.
        mask: (B, N) bool or None.
    """
    grad_out, edge, values = grad_out.contiguous(), edge.contiguous(), values.contiguous()
    batch, nodes, channels = values.shape
    grad_edge, grad_values = torch.empty_like(edge), torch.empty_like(values)
    launch = backward_plan(batch, nodes, channels, mask is not None)
    mask_or_any = values if mask is None else mask.contiguous()
    launch(grad_out, edge, values, mask_or_any, grad_edge, grad_values)
    return grad_edge, grad_values


@lru_cache(PLANS)
def backward_plan(batch: int, nodes: int, channels: int, masked: bool) -> Launch:
    """Return the launch of the backward kernel."""
    options = whole_graph(nodes)
    grid = (batch, cdiv(channels, options["BLOCK_C"]))
    return Launch(backward_kernel, grid, (nodes,), C=channels, HAS_MASK=masked, **options)


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the tables of options, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, masked in (
        (12, 512, torch.float32, False),
        (17, 65, torch.bfloat16, True),
        (27, 40, torch.float32, True),
        (41, 512, torch.float16, False),
        (41, 65, torch.float32, True),
        (68, 512, torch.float32, True),
        (196, 65, torch.float32, True),
    ):
        values = torch.empty(2, nodes, channels, dtype=dtype)
        edge = values.new_empty(2, nodes, nodes, channels)
        mask = values.new_empty((2, nodes), dtype=torch.bool) if masked else None
        yield partial(forward, edge, values, mask)
        yield partial(backward, values, edge, values, mask)
