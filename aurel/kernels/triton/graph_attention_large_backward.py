"""Backward kernels of `graph_attention_large`."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.attention_tiles import (
    all_finite,
    head_of,
    inner_products,
    node_tile,
    row_statistics,
    weight_tile,
)


@triton.jit
def load_statistics(statistic_ptr, statistic_stride, o_row, N):
    """Return largest score and sum of exponentials of rows."""
    b_max = tl.load(statistic_ptr + o_row, mask=o_row < N, other=0.0)
    return b_max, tl.load(statistic_ptr + statistic_stride + o_row, mask=o_row < N, other=1.0)


@triton.jit
def gradient_tile(
    head,
    products,
    o_row,
    o_col,
    b_max,
    b_sum,
    C,
    OUT: tl.constexpr,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return weights, slopes, edges and d of a tile [rows, columns]; d is zero without an edge.

    `products` holds pointers to the gradient of y, to the values and to the gradient of w of one
    head, and the strides from one node to the next in the first two.
    """
    grad_ptr, value_ptr, grad_weight_ptr, grad_stride, value_stride = products
    N = head[3]
    b_weight, b_slope, m_edge = weight_tile(
        head, o_row[:, None], o_col[None, :], b_max[:, None], b_sum[:, None]
    )
    b_out = tl.zeros((o_row.shape[0], o_col.shape[0]), tl.float32)
    if OUT:
        for c0 in range(0, C, BLOCK_C):
            o_c = c0 + tl.arange(0, BLOCK_C)
            b_grad = node_tile(grad_ptr, o_row, o_c, N, C, grad_stride)
            b_value = node_tile(value_ptr, o_col, o_c, N, C, value_stride)
            b_out = inner_products(b_grad, b_value, b_out, UPCAST, PRECISION)
    if WEIGHTS:
        p_weight = grad_weight_ptr + o_row[:, None] * N + o_col[None, :]
        b_out += tl.load(p_weight, mask=m_edge, other=0.0).to(tl.float32)
    return b_weight, b_slope, m_edge, tl.where(m_edge, b_out, 0.0)


@triton.jit
def row_gradients(
    head,
    products,
    o_row,
    b_max,
    b_sum,
    C,
    OUT: tl.constexpr,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return D and dt of rows."""
    b_mean = tl.zeros(o_row.shape, tl.float32)
    b_sloped_mean = tl.zeros(o_row.shape, tl.float32)
    b_mean_slope = tl.zeros(o_row.shape, tl.float32)
    for n0 in range(0, head[3], o_row.shape[0]):
        o_col = n0 + tl.arange(0, o_row.shape[0])
        b_weight, b_slope, _, b_grad = gradient_tile(
            head, products, o_row, o_col, b_max, b_sum, C, OUT, WEIGHTS, UPCAST, PRECISION, BLOCK_C
        )
        b_grad = b_weight * b_grad
        b_mean += tl.sum(b_grad, axis=1)
        b_sloped_mean += tl.sum(b_grad * b_slope, axis=1)
        b_mean_slope += tl.sum(b_weight * b_slope, axis=1)
    return b_mean, b_sloped_mean - b_mean * b_mean_slope


@triton.jit
def row_kernel(
    grad_ptr,
    grad_weight_ptr,
    value_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    statistic_ptr,
    grad_target_ptr,
    statistic_stride,
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
    """Own a block of rows of one head: write dt, and three statistics for the others."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_row = o_row < N
    pointers = (target_ptr, source_ptr, adjacency_ptr)
    strides = (score_stride_b, score_stride_h, score_stride_n, adjacency_stride_b)
    head = head_of(i_graph, H, pointers, strides, N, negative_slope)
    b_max, b_sum = row_statistics(head, o_row)
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    grad_weight_ptr += i_graph * N * N
    products = (grad_ptr, value_ptr, grad_weight_ptr, grad_stride_n, value_stride_n)
    b_mean, b_grad_target = row_gradients(
        head, products, o_row, b_max, b_sum, C, OUT, WEIGHTS, UPCAST, PRECISION, BLOCK_C
    )
    statistic_ptr += i_graph * N + o_row
    tl.store(statistic_ptr, b_max, mask=m_row)
    tl.store(statistic_ptr + statistic_stride, b_sum, mask=m_row)
    # not 2 * stride, which may need more than the 32 bits that a stride fits into
    tl.store(statistic_ptr + statistic_stride + statistic_stride, b_mean, mask=m_row)
    b_grad_target = b_grad_target.to(grad_target_ptr.dtype.element_ty)
    tl.store(grad_target_ptr + i_graph * N + o_row, b_grad_target, mask=m_row)


@triton.jit
def column_kernel(
    grad_ptr,
    grad_weight_ptr,
    value_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    statistic_ptr,
    grad_source_ptr,
    statistic_stride,
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
    """Own a block of columns of one head: write ds."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    pointers = (target_ptr, source_ptr, adjacency_ptr)
    strides = (score_stride_b, score_stride_h, score_stride_n, adjacency_stride_b)
    head = head_of(i_graph, H, pointers, strides, N, negative_slope)
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    grad_weight_ptr += i_graph * N * N
    products = (grad_ptr, value_ptr, grad_weight_ptr, grad_stride_n, value_stride_n)
    statistic_ptr += i_graph * N
    b_grad_source = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_row, N)
        b_weight, b_slope, m_edge, b_grad = gradient_tile(
            head, products, o_row, o_col, b_max, b_sum, C, OUT, WEIGHTS, UPCAST, PRECISION, BLOCK_C
        )
        p_mean = statistic_ptr + statistic_stride + statistic_stride + o_row
        b_mean = tl.load(p_mean, mask=o_row < N, other=0.0)
        b_grad = b_weight * (b_grad - b_mean[:, None]) * b_slope
        b_grad_source += tl.sum(tl.where(m_edge, b_grad, 0.0), axis=0)
    b_grad_source = b_grad_source.to(grad_source_ptr.dtype.element_ty)
    tl.store(grad_source_ptr + i_graph * N + o_col, b_grad_source, mask=o_col < N)


@triton.jit
def sum_over_targets(head, grad_ptr, statistic_ptr, statistic_stride, o_col, o_c, grad_stride, C):
    """Return the weighted sum of columns, edge by edge."""
    b_out = tl.zeros((o_col.shape[0], o_c.shape[0]), tl.float32)
    for i in range(head[3]):
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, i, head[3])
        b_weight, _, m_edge = weight_tile(head, i, o_col, b_max, b_sum)
        b_grad = tl.load(grad_ptr + i * grad_stride + o_c, mask=o_c < C, other=0.0)
        b_message = b_weight[:, None] * b_grad.to(tl.float32)[None, :]
        b_out += tl.where(m_edge[:, None], b_message, 0.0)
    return b_out


@triton.jit
def value_kernel(
    grad_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    statistic_ptr,
    grad_value_ptr,
    statistic_stride,
    grad_stride_b,
    grad_stride_h,
    grad_stride_n,
    score_stride_b,
    score_stride_h,
    score_stride_n,
    adjacency_stride_b,
    H,
    N,
    C,
    negative_slope,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a block of columns of one head and a strip of channels of dz."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    pointers = (target_ptr, source_ptr, adjacency_ptr)
    strides = (score_stride_b, score_stride_h, score_stride_n, adjacency_stride_b)
    head = head_of(i_graph, H, pointers, strides, N, negative_slope)
    statistic_ptr += i_graph * N
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    b_out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_row, N)
        # [BLOCK_N, BLOCK_N]
        b_weight, _, _ = weight_tile(
            head, o_row[None, :], o_col[:, None], b_max[None, :], b_sum[None, :]
        )
        # [BLOCK_N, BLOCK_C]
        b_grad = node_tile(grad_ptr, o_row, o_c, N, C, grad_stride_n).to(tl.float32)
        b_out = tl.dot(b_weight, b_grad, b_out, input_precision=PRECISION)
    if not all_finite(b_out):
        b_out = sum_over_targets(
            head, grad_ptr, statistic_ptr, statistic_stride, o_col, o_c, grad_stride_n, C
        )
    tl.store(
        grad_value_ptr + i_graph * N * C + o_col[:, None] * C + o_c[None, :],
        b_out.to(grad_value_ptr.dtype.element_ty),
        mask=(o_col < N)[:, None] & (o_c < C)[None, :],
    )
