"""Backward kernels of `graph_attention_large`."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.attention_tiles import (
    all_finite,
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
def weight_gradient(
    grad_ptr,
    grad_weight_ptr,
    value_ptr,
    m_edge,
    o_row,
    o_col,
    grad_stride,
    value_stride,
    N,
    C,
    OUT: tl.constexpr,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return d of a tile, [rows, columns], zero without an edge."""
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
    return tl.where(m_edge, b_out, 0.0)


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
    target_ptr += i_batch * score_stride_b + i_head * score_stride_h
    source_ptr += i_batch * score_stride_b + i_head * score_stride_h
    adjacency_ptr += i_batch * adjacency_stride_b
    b_max, b_sum = row_statistics(
        target_ptr, source_ptr, adjacency_ptr, o_row, N, score_stride_n, negative_slope
    )
    b_mean = tl.zeros((BLOCK_N,), tl.float32)
    b_sloped_mean = tl.zeros((BLOCK_N,), tl.float32)
    b_mean_slope = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_col = n0 + tl.arange(0, BLOCK_N)
        b_weight, b_slope, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[:, None],
            o_col[None, :],
            b_max[:, None],
            b_sum[:, None],
            N,
            score_stride_n,
            negative_slope,
        )
        b_grad = weight_gradient(
            grad_ptr + i_batch * grad_stride_b + i_head * grad_stride_h,
            grad_weight_ptr + i_graph * N * N,
            value_ptr + i_batch * value_stride_b + i_head * value_stride_h,
            m_edge,
            o_row,
            o_col,
            grad_stride_n,
            value_stride_n,
            N,
            C,
            OUT,
            WEIGHTS,
            UPCAST,
            PRECISION,
            BLOCK_C,
        )
        b_grad = b_weight * b_grad
        b_mean += tl.sum(b_grad, axis=1)
        b_sloped_mean += tl.sum(b_grad * b_slope, axis=1)
        b_mean_slope += tl.sum(b_weight * b_slope, axis=1)
    statistic_ptr += i_graph * N + o_row
    tl.store(statistic_ptr, b_max, mask=m_row)
    tl.store(statistic_ptr + statistic_stride, b_sum, mask=m_row)
    # not 2 * stride, which may need more than the 32 bits that a stride fits into
    tl.store(statistic_ptr + statistic_stride + statistic_stride, b_mean, mask=m_row)
    b_grad_target = b_sloped_mean - b_mean * b_mean_slope
    tl.store(
        grad_target_ptr + i_graph * N + o_row,
        b_grad_target.to(grad_target_ptr.dtype.element_ty),
        mask=m_row,
    )


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
    p_score = i_batch * score_stride_b + i_head * score_stride_h
    statistic_ptr += i_graph * N
    b_grad_source = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_row, N)
        b_weight, b_slope, m_edge = weight_tile(
            target_ptr + p_score,
            source_ptr + p_score,
            adjacency_ptr + i_batch * adjacency_stride_b,
            o_row[:, None],
            o_col[None, :],
            b_max[:, None],
            b_sum[:, None],
            N,
            score_stride_n,
            negative_slope,
        )
        b_grad = weight_gradient(
            grad_ptr + i_batch * grad_stride_b + i_head * grad_stride_h,
            grad_weight_ptr + i_graph * N * N,
            value_ptr + i_batch * value_stride_b + i_head * value_stride_h,
            m_edge,
            o_row,
            o_col,
            grad_stride_n,
            value_stride_n,
            N,
            C,
            OUT,
            WEIGHTS,
            UPCAST,
            PRECISION,
            BLOCK_C,
        )
        p_mean = statistic_ptr + statistic_stride + statistic_stride + o_row
        b_mean = tl.load(p_mean, mask=o_row < N, other=0.0)
        b_grad = b_weight * (b_grad - b_mean[:, None]) * b_slope
        b_grad_source += tl.sum(tl.where(m_edge, b_grad, 0.0), axis=0)
    tl.store(
        grad_source_ptr + i_graph * N + o_col,
        b_grad_source.to(grad_source_ptr.dtype.element_ty),
        mask=o_col < N,
    )


@triton.jit
def sum_over_targets(
    grad_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    statistic_ptr,
    o_col,
    o_c,
    statistic_stride,
    grad_stride,
    N,
    C,
    score_stride,
    negative_slope,
):
    """Return the weighted sum of columns, edge by edge."""
    b_out = tl.zeros((o_col.shape[0], o_c.shape[0]), tl.float32)
    for i in range(N):
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, i, N)
        b_weight, _, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            i,
            o_col,
            b_max,
            b_sum,
            N,
            score_stride,
            negative_slope,
        )
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
    target_ptr += i_batch * score_stride_b + i_head * score_stride_h
    source_ptr += i_batch * score_stride_b + i_head * score_stride_h
    adjacency_ptr += i_batch * adjacency_stride_b
    statistic_ptr += i_graph * N
    grad_ptr += i_batch * grad_stride_b + i_head * grad_stride_h
    b_out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_row, N)
        # [BLOCK_N, BLOCK_N]
        b_weight, _, _ = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[None, :],
            o_col[:, None],
            b_max[None, :],
            b_sum[None, :],
            N,
            score_stride_n,
            negative_slope,
        )
        # [BLOCK_N, BLOCK_C]
        b_grad = node_tile(grad_ptr, o_row, o_c, N, C, grad_stride_n).to(tl.float32)
        b_out = tl.dot(b_weight, b_grad, b_out, input_precision=PRECISION)
    if not all_finite(b_out):
        b_out = sum_over_targets(
            grad_ptr,
            target_ptr,
            source_ptr,
            adjacency_ptr,
            statistic_ptr,
            o_col,
            o_c,
            statistic_stride,
            grad_stride_n,
            N,
            C,
            score_stride_n,
            negative_slope,
        )
    tl.store(
        grad_value_ptr + i_graph * N * C + o_col[:, None] * C + o_c[None, :],
        b_out.to(grad_value_ptr.dtype.element_ty),
        mask=(o_col < N)[:, None] & (o_c < C)[None, :],
    )
