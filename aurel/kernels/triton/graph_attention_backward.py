"""Backward kernel of `graph_attention`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.attention_tiles import (
    all_finite,
    graph_weights,
    head_of,
    inner_products,
    node_tile,
    weight_tile,
)


@triton.jit
def sum_over_targets(head, grad_ptr, b_max, b_sum, o_n, o_c, grad_stride, C):
    """Return the weighted sum of columns, edge by edge."""
    b_out = tl.zeros((o_n.shape[0], o_c.shape[0]), tl.float32)
    for i in range(head[3]):
        b_max_i = tl.sum(tl.where(o_n == i, b_max, 0.0))
        b_sum_i = tl.sum(tl.where(o_n == i, b_sum, 0.0))
        b_weight, _, m_edge = weight_tile(head, i, o_n, b_max_i, b_sum_i)
        b_grad = tl.load(grad_ptr + i * grad_stride + o_c, mask=o_c < C, other=0.0)
        b_message = b_weight[:, None] * b_grad.to(tl.float32)[None, :]
        b_out += tl.where(m_edge[:, None], b_message, 0.0)
    return b_out


@triton.jit
def weight_gradients(
    products,
    m_edge,
    o_n,
    N,
    C,
    OUT: tl.constexpr,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return d of a whole graph, [BLOCK_N, BLOCK_N]; `products` as in `gradient_tile`."""
    grad_ptr, value_ptr, grad_weight_ptr, grad_stride, value_stride = products
    b_out = tl.zeros((o_n.shape[0], o_n.shape[0]), tl.float32)
    if OUT:
        for c0 in range(0, C, BLOCK_C):
            o_c = c0 + tl.arange(0, BLOCK_C)
            # [BLOCK_N, BLOCK_C]
            b_grad = node_tile(grad_ptr, o_n, o_c, N, C, grad_stride)
            b_value = node_tile(value_ptr, o_n, o_c, N, C, value_stride)
            b_out = inner_products(b_grad, b_value, b_out, UPCAST, PRECISION)
    if WEIGHTS:
        p_weight = grad_weight_ptr + o_n[:, None] * N + o_n[None, :]
        b_out += tl.load(p_weight, mask=m_edge, other=0.0).to(tl.float32)
    return b_out


@triton.jit
def store_value_gradients(
    head,
    products,
    grad_value_ptr,
    b_weight,
    b_max,
    b_sum,
    o_n,
    C,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Store dz of one head, strip of channels by strip."""
    grad_ptr, _, _, grad_stride, _ = products
    N = head[3]
    b_transposed = tl.trans(b_weight)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        # [BLOCK_N, BLOCK_C]
        b_grad = node_tile(grad_ptr, o_n, o_c, N, C, grad_stride).to(tl.float32)
        b_grad_value = tl.dot(b_transposed, b_grad, input_precision=PRECISION)
        if not all_finite(b_grad_value):
            b_grad_value = sum_over_targets(head, grad_ptr, b_max, b_sum, o_n, o_c, grad_stride, C)
        tl.store(
            grad_value_ptr + o_n[:, None] * C + o_c[None, :],
            b_grad_value.to(grad_value_ptr.dtype.element_ty),
            mask=(o_n < N)[:, None] & (o_c < C)[None, :],
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
    pointers = (target_ptr, source_ptr, adjacency_ptr)
    strides = (score_stride_b, score_stride_h, score_stride_n, adjacency_stride_b)
    head = head_of(i_graph, H, pointers, strides, N, negative_slope)
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    grad_weight_ptr += i_graph * N * N
    products = (grad_ptr, value_ptr, grad_weight_ptr, grad_stride_n, value_stride_n)
    # [BLOCK_N, BLOCK_N]
    b_weight, b_slope, m_edge, b_max, b_sum = graph_weights(head, o_n)
    b_grad_weight = weight_gradients(
        products, m_edge, o_n, N, C, OUT, WEIGHTS, UPCAST, PRECISION, BLOCK_C
    )
    b_mean = tl.sum(tl.where(m_edge, b_weight * b_grad_weight, 0.0), axis=1)
    b_grad_score = b_weight * (b_grad_weight - b_mean[:, None]) * b_slope
    b_grad_score = tl.where(m_edge, b_grad_score, 0.0)
    p_node = i_graph * N + o_n
    b_grad_target = tl.sum(b_grad_score, axis=1).to(grad_target_ptr.dtype.element_ty)
    tl.store(grad_target_ptr + p_node, b_grad_target, mask=o_n < N)
    b_grad_source = tl.sum(b_grad_score, axis=0).to(grad_source_ptr.dtype.element_ty)
    tl.store(grad_source_ptr + p_node, b_grad_source, mask=o_n < N)
    if OUT:
        grad_value_ptr += i_graph * N * C
        store_value_gradients(
            head, products, grad_value_ptr, b_weight, b_max, b_sum, o_n, C, PRECISION, BLOCK_C
        )
