"""Attention of many dense graphs along given edges: scores, masked softmax, weighted sum.

Forward, for the edges i -> j of adjacency (N, N) or (B, N, N):
    w_ij = softmax over j of leaky_relu(t_i + s_j), y_i = sum_j w_ij z_j,
with values z and out y (B, H, N, C), scores t and s (B, H, N). A row without edges gives zeros. The
sum runs over edges: what is not connected never reaches a row. An infinite value with a positive
weight gives infinity of its sign, two of different signs or one with weight zero give NaN. A
product of matrices has that wrong, but then it is not finite, and the sum is taken edge by edge.

Backward, from g = dL/dy and h = dL/dw:
    d_ij = g_i z_j + h_ij, D_i = sum_j w_ij d_ij, p_ij = w_ij (d_ij - D_i) leaky_relu'(t_i + s_j),
    dt_i = sum_j p_ij, ds_j = sum_i p_ij, dz_j = sum_i w_ij g_i.

Up to `whole_graph` nodes a program holds all weights of a head: one launch each way.
`graph_attention_large` serves more. Nothing is saved but the inputs; weights (B, H, N, N) reach
memory only where they are asked for. Everything is float32 inside, products as `precision` says.
Values, scores and the gradient of y may be views with other strides, such as heads that were split
off the channels; only channels must lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton import graph_attention_large
from aurel.kernels.triton.attention_tiles import (
    all_finite,
    edge_tile,
    inner_products,
    node_tile,
    sum_over_sources,
    weight_tile,
)
from aurel.kernels.triton.graph_attention_problem import Heads, rows
from aurel.kernels.triton.launch import launch
from aurel.kernels.triton.precision import whole_graph
from aurel.kernels.triton.sizes import power_of_two


@triton.jit
def graph_weights(target_ptr, source_ptr, adjacency_ptr, o_n, N, score_stride, negative_slope):
    """Return weights, slopes and edges of a whole graph, and the statistics of its rows."""
    b_score, b_slope, m_edge = edge_tile(
        target_ptr,
        source_ptr,
        adjacency_ptr,
        o_n[:, None],
        o_n[None, :],
        N,
        score_stride,
        negative_slope,
    )
    b_score = tl.where(m_edge, b_score, -float("inf"))
    b_max = tl.max(b_score, axis=1)
    b_max = tl.where(b_max == -float("inf"), 0.0, b_max)
    b_weight = tl.exp(b_score - b_max[:, None])
    b_sum = tl.sum(b_weight, axis=1)
    b_weight = tl.where(m_edge, b_weight / b_sum[:, None], 0.0)
    return b_weight, b_slope, m_edge, b_max, b_sum


@triton.jit
def sum_over_targets(
    grad_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    b_max,
    b_sum,
    o_n,
    o_c,
    grad_stride,
    N,
    C,
    score_stride,
    negative_slope,
):
    """Return the weighted sum of columns, edge by edge."""
    b_out = tl.zeros((o_n.shape[0], o_c.shape[0]), tl.float32)
    for i in range(N):
        b_weight, _, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            i,
            o_n,
            tl.sum(tl.where(o_n == i, b_max, 0.0)),
            tl.sum(tl.where(o_n == i, b_sum, 0.0)),
            N,
            score_stride,
            negative_slope,
        )
        b_grad = tl.load(grad_ptr + i * grad_stride + o_c, mask=o_c < C, other=0.0)
        b_message = b_weight[:, None] * b_grad.to(tl.float32)[None, :]
        b_out += tl.where(m_edge[:, None], b_message, 0.0)
    return b_out


@triton.jit
def forward_kernel(
    value_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    out_ptr,
    weight_ptr,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    score_stride_b,
    score_stride_h,
    score_stride_n,
    adjacency_stride_b,
    H,
    N,
    C,
    negative_slope,
    WEIGHTS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a head of one graph and a strip of channels."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_n = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    p_score = i_batch * score_stride_b + i_head * score_stride_h
    target_ptr += p_score
    source_ptr += p_score
    adjacency_ptr += i_batch * adjacency_stride_b
    # [BLOCK_N, BLOCK_N]
    b_weight, _, _, b_max, b_sum = graph_weights(
        target_ptr, source_ptr, adjacency_ptr, o_n, N, score_stride_n, negative_slope
    )
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    # [BLOCK_N, BLOCK_C]
    b_value = node_tile(value_ptr, o_n, o_c, N, C, value_stride_n).to(tl.float32)
    b_out = tl.dot(b_weight, b_value, input_precision=PRECISION)
    if not all_finite(b_out):
        b_out = sum_over_sources(
            value_ptr,
            target_ptr,
            source_ptr,
            adjacency_ptr,
            b_max,
            b_sum,
            o_n,
            o_c,
            value_stride_n,
            N,
            C,
            score_stride_n,
            negative_slope,
        )
    tl.store(
        out_ptr + i_graph * N * C + o_n[:, None] * C + o_c[None, :],
        b_out.to(out_ptr.dtype.element_ty),
        mask=(o_n < N)[:, None] & (o_c < C)[None, :],
    )
    if WEIGHTS:
        tl.store(
            weight_ptr + i_graph * N * N + o_n[:, None] * N + o_n[None, :],
            b_weight.to(weight_ptr.dtype.element_ty),
            mask=(o_n < N)[:, None] & (o_n < N)[None, :] & (tl.program_id(1) == 0),
        )


@triton.jit
def backward_kernel(
    grad_ptr,
    grad_weight_ptr,
    value_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    grad_value_ptr,
    grad_target_ptr,
    grad_source_ptr,
    grad_stride_b,
    grad_stride_h,
    grad_stride_n,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    score_stride_b,
    score_stride_h,
    score_stride_n,
    adjacency_stride_b,
    H,
    N,
    C,
    negative_slope,
    OUT: tl.constexpr,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a head of one graph; OUT and WEIGHTS: there is a gradient of y, and of w."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_n = tl.arange(0, BLOCK_N)
    m_n = o_n < N
    p_score = i_batch * score_stride_b + i_head * score_stride_h
    target_ptr += p_score
    source_ptr += p_score
    adjacency_ptr += i_batch * adjacency_stride_b
    # [BLOCK_N, BLOCK_N]
    b_weight, b_slope, m_edge, b_max, b_sum = graph_weights(
        target_ptr, source_ptr, adjacency_ptr, o_n, N, score_stride_n, negative_slope
    )
    b_grad_weight = tl.zeros((BLOCK_N, BLOCK_N), tl.float32)
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    if OUT:
        value_ptr += i_batch * value_stride_b + i_head * value_stride_h
        for c0 in range(0, C, BLOCK_C):
            o_c = c0 + tl.arange(0, BLOCK_C)
            # [BLOCK_N, BLOCK_C]
            b_grad = node_tile(grad_ptr, o_n, o_c, N, C, grad_stride_n)
            b_value = node_tile(value_ptr, o_n, o_c, N, C, value_stride_n)
            b_grad_weight = inner_products(b_grad, b_value, b_grad_weight, UPCAST, PRECISION)
    if WEIGHTS:
        p_weight = grad_weight_ptr + i_graph * N * N + o_n[:, None] * N + o_n[None, :]
        b_grad_weight += tl.load(p_weight, mask=m_edge, other=0.0).to(tl.float32)
    b_mean = tl.sum(tl.where(m_edge, b_weight * b_grad_weight, 0.0), axis=1)
    b_grad_score = b_weight * (b_grad_weight - b_mean[:, None]) * b_slope
    b_grad_score = tl.where(m_edge, b_grad_score, 0.0)
    p_node = i_graph * N + o_n
    b_grad_target = tl.sum(b_grad_score, axis=1).to(grad_target_ptr.dtype.element_ty)
    tl.store(grad_target_ptr + p_node, b_grad_target, mask=m_n)
    b_grad_source = tl.sum(b_grad_score, axis=0).to(grad_source_ptr.dtype.element_ty)
    tl.store(grad_source_ptr + p_node, b_grad_source, mask=m_n)
    if OUT:
        b_transposed = tl.trans(b_weight)
        for c0 in range(0, C, BLOCK_C):
            o_c = c0 + tl.arange(0, BLOCK_C)
            # [BLOCK_N, BLOCK_C]
            b_grad = node_tile(grad_ptr, o_n, o_c, N, C, grad_stride_n).to(tl.float32)
            b_grad_value = tl.dot(b_transposed, b_grad, input_precision=PRECISION)
            if not all_finite(b_grad_value):
                b_grad_value = sum_over_targets(
                    grad_ptr,
                    target_ptr,
                    source_ptr,
                    adjacency_ptr,
                    b_max,
                    b_sum,
                    o_n,
                    o_c,
                    grad_stride_n,
                    N,
                    C,
                    score_stride_n,
                    negative_slope,
                )
            tl.store(
                grad_value_ptr + i_graph * N * C + o_n[:, None] * C + o_c[None, :],
                b_grad_value.to(grad_value_ptr.dtype.element_ty),
                mask=m_n[:, None] & (o_c < C)[None, :],
            )


def plan(nodes: int, channels: int, widest: int) -> dict[str, Any]:
    """Return the launch options: as many channels at a time as do not spill."""
    block_n = power_of_two(nodes)
    return {
        "BLOCK_N": block_n,
        "BLOCK_C": min(widest, power_of_two(channels)),
        "num_warps": 4 if block_n <= 32 else 8,
        "num_stages": 1,
    }


def forward(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Return the aggregate (B, H, N, C) and the weights (B, H, N, N), empty if not wanted.

    Args:
        values: (B, H, N, C), float32, float16 or bfloat16, like the scores.
        target_score: (B, H, N).
        source_score: (B, H, N).
        adjacency: (N, N) or (B, N, N), bool.
        negative_slope: of the leaky ReLU.
        return_weights: write the weights.
    """
    heads = Heads(values, target_score, source_score, adjacency, negative_slope)
    out = values.new_empty(values.shape)
    weights = values.new_empty((*values.shape[:3], heads.nodes) if return_weights else (0,))
    if heads.nodes > whole_graph():
        graph_attention_large.forward(heads, out, weights, return_weights)
        return out, weights
    options = plan(heads.nodes, heads.channels, widest=64)
    launch(
        forward_kernel,
        (heads.count, max(1, triton.cdiv(heads.channels, options["BLOCK_C"]))),
        *heads.inputs,
        out,
        weights,
        *heads.value_strides,
        *heads.sizes,
        WEIGHTS=return_weights,
        PRECISION=heads.precision,
        **options,
    )
    return out, weights


def backward(
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values and both scores.

    Args:
        grad_out: (B, H, N, C), or None if only the weights were used.
        grad_weights: (B, H, N, N), or None if the weights were not used.
        values: as in `forward`, like the rest.
        target_score: (B, H, N).
        source_score: (B, H, N).
        adjacency: (N, N) or (B, N, N), bool.
        negative_slope: of the leaky ReLU.
    """
    heads = Heads(values, target_score, source_score, adjacency, negative_slope)
    new = values.new_empty if grad_out is not None else values.new_zeros
    grads = (
        new(values.shape),
        target_score.new_empty(target_score.shape),
        source_score.new_empty(source_score.shape),
    )
    grad_out = None if grad_out is None else rows(grad_out)
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    if heads.nodes > whole_graph():
        graph_attention_large.backward(heads, grad_out, grad_weights, grads)
        return grads
    unread = heads.inputs[0]
    launch(
        backward_kernel,
        (heads.count,),
        unread if grad_out is None else grad_out,
        unread if grad_weights is None else grad_weights,
        *heads.inputs,
        *grads,
        *(heads.value_strides if grad_out is None else grad_out.stride()[:3]),
        *heads.value_strides,
        *heads.sizes,
        OUT=grad_out is not None,
        WEIGHTS=grad_weights is not None,
        UPCAST=heads.upcast,
        PRECISION=heads.precision,
        **plan(heads.nodes, heads.channels, widest=32),
    )
    return grads


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls with every kernel and option, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, weighted in (
        (12, 512, torch.float32, False),
        (17, 40, torch.bfloat16, False),
        (41, 128, torch.float32, False),
        (41, 65, torch.float16, True),
        (196, 65, torch.float32, True),
        (100, 64, torch.bfloat16, False),
    ):
        values = torch.empty(2, nodes, 2, channels, dtype=dtype).transpose(1, 2)
        score = values.new_empty(2, nodes, 2).transpose(1, 2)
        edges = torch.empty(2, nodes, nodes, dtype=torch.bool)
        weights = torch.empty(2, 2, nodes, nodes, dtype=dtype) if weighted else None
        yield partial(forward, values, score, score, edges, 0.2, weighted)
        yield partial(backward, values, weights, values, score, score, edges, 0.2)
    values, score = torch.empty(2, 2, 41, 64), torch.empty(2, 2, 41)
    edges = torch.empty(41, 41, dtype=torch.bool)
    yield partial(backward, None, values[..., :41], values, score, score, edges, 0.2)
