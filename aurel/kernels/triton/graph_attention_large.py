"""`graph_attention` of more nodes than fit into a tile: the equations are those of that module.

Scores cost one addition, so every pass computes them again, tile by tile. One kernel owns rows
(dt), two own columns (ds; dz), so no atomics are needed and every run gives the same bits. From the
first backward kernel to the others go three numbers a row: its largest score, its sum of
exponentials, and D. One launch forward, up to three backward.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.attention_tiles import (
    all_finite,
    edge_tile,
    inner_products,
    node_tile,
    sum_over_sources,
    weight_tile,
)
from aurel.kernels.triton.graph_attention_problem import Heads
from aurel.kernels.triton.launch import launch


@triton.jit
def row_statistics(target_ptr, source_ptr, adjacency_ptr, o_row, N, score_stride, negative_slope):
    """Return the largest score of each row (0 where it has none) and the sum of exponentials."""
    b_max = tl.full(o_row.shape, -float("inf"), tl.float32)
    b_sum = tl.zeros(o_row.shape, tl.float32)
    b_shift = tl.zeros(o_row.shape, tl.float32)
    for n0 in range(0, N, o_row.shape[0]):
        o_col = n0 + tl.arange(0, o_row.shape[0])
        b_score, _, m_edge = edge_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[:, None],
            o_col[None, :],
            N,
            score_stride,
            negative_slope,
        )
        b_score = tl.where(m_edge, b_score, -float("inf"))
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_score, axis=1))
        b_shift = tl.where(b_max == -float("inf"), 0.0, b_max)
        b_sum = b_sum * tl.exp(b_before - b_shift)
        b_sum += tl.sum(tl.exp(b_score - b_shift[:, None]), axis=1)
    return b_shift, b_sum


@triton.jit
def load_statistics(statistic_ptr, statistic_stride, o_row, N):
    """Return largest score and sum of exponentials of rows."""
    b_max = tl.load(statistic_ptr + o_row, mask=o_row < N, other=0.0)
    return b_max, tl.load(statistic_ptr + statistic_stride + o_row, mask=o_row < N, other=1.0)


@triton.jit
def forward_tile_kernel(
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
    """Own a block of rows of one head and a strip of channels."""
    i_graph = tl.program_id(0).to(tl.int64)
    i_batch, i_head = i_graph // H, i_graph % H
    o_row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    target_ptr += i_batch * score_stride_b + i_head * score_stride_h
    source_ptr += i_batch * score_stride_b + i_head * score_stride_h
    adjacency_ptr += i_batch * adjacency_stride_b
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    b_max, b_sum = row_statistics(
        target_ptr, source_ptr, adjacency_ptr, o_row, N, score_stride_n, negative_slope
    )
    b_out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_col = n0 + tl.arange(0, BLOCK_N)
        # [BLOCK_N, BLOCK_N]
        b_weight, _, _ = weight_tile(
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
        # [BLOCK_N, BLOCK_C]
        b_value = node_tile(value_ptr, o_col, o_c, N, C, value_stride_n).to(tl.float32)
        b_out = tl.dot(b_weight, b_value, b_out, input_precision=PRECISION)
        if WEIGHTS:
            m_weight = (o_row < N)[:, None] & (o_col < N)[None, :] & (tl.program_id(2) == 0)
            tl.store(
                weight_ptr + i_graph * N * N + o_row[:, None] * N + o_col[None, :],
                b_weight.to(weight_ptr.dtype.element_ty),
                mask=m_weight,
            )
    if not all_finite(b_out):
        b_out = sum_over_sources(
            value_ptr,
            target_ptr,
            source_ptr,
            adjacency_ptr,
            b_max,
            b_sum,
            o_row,
            o_c,
            value_stride_n,
            N,
            C,
            score_stride_n,
            negative_slope,
        )
    tl.store(
        out_ptr + i_graph * N * C + o_row[:, None] * C + o_c[None, :],
        b_out.to(out_ptr.dtype.element_ty),
        mask=(o_row < N)[:, None] & (o_c < C)[None, :],
    )


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


OPTIONS: dict[str, Any] = {"BLOCK_N": 32, "BLOCK_C": 32, "num_warps": 8, "num_stages": 1}


def forward(heads: Heads, out: Tensor, weights: Tensor, return_weights: bool) -> None:
    """Write the aggregate and, if wanted, the weights."""
    launch(
        forward_tile_kernel,
        (
            heads.count,
            triton.cdiv(heads.nodes, OPTIONS["BLOCK_N"]),
            max(1, triton.cdiv(heads.channels, OPTIONS["BLOCK_C"])),
        ),
        *heads.inputs,
        out,
        weights,
        *heads.value_strides,
        *heads.sizes,
        WEIGHTS=return_weights,
        PRECISION=heads.precision,
        **OPTIONS,
    )


def backward(
    heads: Heads,
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of values and both scores; that of values only if there is grad_out."""
    values, *graph = heads.inputs
    grad_values, grad_target, grad_source = grads
    statistics = values.new_empty((3, heads.count * heads.nodes), dtype=torch.float32)
    given = (
        values if grad_out is None else grad_out,
        values if grad_weights is None else grad_weights,
        values,
    )
    strides = heads.value_strides if grad_out is None else grad_out.stride()[:3]
    sizes = (statistics.shape[1], *strides, *heads.value_strides, *heads.sizes)
    options = OPTIONS | {
        "OUT": grad_out is not None,
        "WEIGHTS": grad_weights is not None,
        "UPCAST": heads.upcast,
        "PRECISION": heads.precision,
    }
    grid = (heads.count, triton.cdiv(heads.nodes, OPTIONS["BLOCK_N"]))
    launch(row_kernel, grid, *given, *graph, statistics, grad_target, *sizes, **options)
    launch(column_kernel, grid, *given, *graph, statistics, grad_source, *sizes, **options)
    if grad_out is not None:
        launch(
            value_kernel,
            (*grid, triton.cdiv(heads.channels, OPTIONS["BLOCK_C"])),
            grad_out,
            *graph,
            statistics,
            grad_values,
            statistics.shape[1],
            *strides,
            *heads.sizes,
            PRECISION=heads.precision,
            **OPTIONS,
        )
