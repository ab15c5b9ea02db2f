"""Attention of many dense graphs along given edges: scores, masked softmax, weighted sum.

Forward, for the edges i -> j of adjacency (N, N) or (B, N, N):
    w_ij = softmax over j of leaky_relu(t_i + s_j), y_i = sum_j w_ij z_j,
with values z and out y (B, H, N, C), scores t and s (B, H, N). A row without edges gives zeros, and
a value that is not finite reaches the rows with an edge to it alone: it counts as zero in the
product, and a second product, of edges and broken values, tells where to put NaN.

Backward, from g = dL/dy and h = dL/dw:
    d_ij = g_i z_j + h_ij, D_i = sum_j w_ij d_ij, p_ij = w_ij (d_ij - D_i) leaky_relu'(t_i + s_j),
    dt_i = sum_j p_ij, ds_j = sum_i p_ij, dz_j = sum_i w_ij g_i.
One kernel owns rows (dt), two own columns (ds; dz), so no atomics are needed and every run gives
the same bits.

Nothing is saved but the inputs. Scores cost one addition, so every pass computes them again, tile
by tile; weights (B, H, N, N) reach memory only where they are asked for. From the first backward
kernel to the others go three numbers a row: its largest score, its sum of exponentials, and D. One
launch forward, three backward. Everything is float32 inside. The limits are those of `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.attention_tiles import product_tile, row_statistics, weight_tile, weighted_sum
from aurel_kernels.launch import INTERPRETED, launch


@triton.jit
def forward_kernel(
    value_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    out_ptr,
    weight_ptr,
    adjacency_stride_b,
    H,
    N,
    C,
    negative_slope,
    WEIGHTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a block of rows of one head and a strip of channels."""
    i_graph = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    target_ptr += i_graph * N
    source_ptr += i_graph * N
    adjacency_ptr += i_graph // H * adjacency_stride_b
    value_ptr += i_graph * N * C
    b_max, b_sum = row_statistics(
        target_ptr, source_ptr, adjacency_ptr, o_row, N, negative_slope, BLOCK_N
    )
    b_out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    b_broken = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_col = n0 + tl.arange(0, BLOCK_N)
        # [BLOCK_N, BLOCK_N]
        b_weight, _, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[:, None],
            o_col[None, :],
            b_max[:, None],
            b_sum[:, None],
            N,
            negative_slope,
        )
        # [BLOCK_N, BLOCK_C]
        b_value = tl.load(
            value_ptr + o_col[:, None] * C + o_c[None, :],
            mask=(o_col < N)[:, None] & (o_c < C)[None, :],
            other=0.0,
        ).to(tl.float32)
        b_out, b_broken = weighted_sum(b_weight, m_edge, b_value, b_out, b_broken)
        if WEIGHTS:
            m_weight = (o_row < N)[:, None] & (o_col < N)[None, :] & (tl.program_id(2) == 0)
            tl.store(
                weight_ptr + i_graph * N * N + o_row[:, None] * N + o_col[None, :],
                b_weight.to(weight_ptr.dtype.element_ty),
                mask=m_weight,
            )
    b_out = tl.where(b_broken > 0, float("nan"), b_out)
    tl.store(
        out_ptr + i_graph * N * C + o_row[:, None] * C + o_c[None, :],
        b_out.to(out_ptr.dtype.element_ty),
        mask=(o_row < N)[:, None] & (o_c < C)[None, :],
    )


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
    adjacency_stride_b,
    statistic_stride,
    H,
    N,
    C,
    negative_slope,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a block of rows of one head: write dt, and three statistics for the others."""
    i_graph = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_row = o_row < N
    target_ptr += i_graph * N
    source_ptr += i_graph * N
    adjacency_ptr += i_graph // H * adjacency_stride_b
    grad_ptr += i_graph * N * C
    value_ptr += i_graph * N * C
    b_max, b_sum = row_statistics(
        target_ptr, source_ptr, adjacency_ptr, o_row, N, negative_slope, BLOCK_N
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
            negative_slope,
        )
        b_grad = product_tile(grad_ptr, value_ptr, o_row, o_col, N, C, UPCAST, BLOCK_N, BLOCK_C)
        if WEIGHTS:
            p_weight = grad_weight_ptr + i_graph * N * N + o_row[:, None] * N + o_col[None, :]
            b_grad += tl.load(p_weight, mask=m_edge, other=0.0).to(tl.float32)
        b_grad = tl.where(m_edge, b_weight * b_grad, 0.0)
        b_mean += tl.sum(b_grad, axis=1)
        b_sloped_mean += tl.sum(b_grad * b_slope, axis=1)
        b_mean_slope += tl.sum(b_weight * b_slope, axis=1)
    statistic_ptr += i_graph * N + o_row
    tl.store(statistic_ptr, b_max, mask=m_row)
    tl.store(statistic_ptr + statistic_stride, b_sum, mask=m_row)
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
    adjacency_stride_b,
    statistic_stride,
    H,
    N,
    C,
    negative_slope,
    WEIGHTS: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a block of columns of one head: write ds."""
    i_graph = tl.program_id(0).to(tl.int64)
    o_col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_col = o_col < N
    target_ptr += i_graph * N
    source_ptr += i_graph * N
    adjacency_ptr += i_graph // H * adjacency_stride_b
    grad_ptr += i_graph * N * C
    value_ptr += i_graph * N * C
    statistic_ptr += i_graph * N
    b_grad_source = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max = tl.load(statistic_ptr + o_row, mask=o_row < N, other=0.0)
        b_sum = tl.load(statistic_ptr + statistic_stride + o_row, mask=o_row < N, other=1.0)
        b_weight, b_slope, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[None, :],
            o_col[:, None],
            b_max[None, :],
            b_sum[None, :],
            N,
            negative_slope,
        )
        b_grad = product_tile(value_ptr, grad_ptr, o_col, o_row, N, C, UPCAST, BLOCK_N, BLOCK_C)
        if WEIGHTS:
            p_weight = grad_weight_ptr + i_graph * N * N + o_row[None, :] * N + o_col[:, None]
            b_grad += tl.load(p_weight, mask=m_edge, other=0.0).to(tl.float32)
        b_mean = tl.load(
            statistic_ptr + statistic_stride + statistic_stride + o_row, mask=o_row < N, other=0.0
        )
        b_grad = b_weight * (b_grad - b_mean[None, :]) * b_slope
        b_grad_source += tl.sum(tl.where(m_edge, b_grad, 0.0), axis=1)
    tl.store(
        grad_source_ptr + i_graph * N + o_col,
        b_grad_source.to(grad_source_ptr.dtype.element_ty),
        mask=m_col,
    )


@triton.jit
def value_kernel(
    grad_ptr,
    target_ptr,
    source_ptr,
    adjacency_ptr,
    statistic_ptr,
    grad_value_ptr,
    adjacency_stride_b,
    statistic_stride,
    H,
    N,
    C,
    negative_slope,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a block of columns of one head and a strip of channels of dz."""
    i_graph = tl.program_id(0).to(tl.int64)
    o_col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    target_ptr += i_graph * N
    source_ptr += i_graph * N
    adjacency_ptr += i_graph // H * adjacency_stride_b
    statistic_ptr += i_graph * N
    grad_ptr += i_graph * N * C
    b_out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    b_broken = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_row = n0 + tl.arange(0, BLOCK_N)
        b_max = tl.load(statistic_ptr + o_row, mask=o_row < N, other=0.0)
        b_sum = tl.load(statistic_ptr + statistic_stride + o_row, mask=o_row < N, other=1.0)
        # [BLOCK_N, BLOCK_N]
        b_weight, _, m_edge = weight_tile(
            target_ptr,
            source_ptr,
            adjacency_ptr,
            o_row[None, :],
            o_col[:, None],
            b_max[None, :],
            b_sum[None, :],
            N,
            negative_slope,
        )
        # [BLOCK_N, BLOCK_C]
        b_grad = tl.load(
            grad_ptr + o_row[:, None] * C + o_c[None, :],
            mask=(o_row < N)[:, None] & (o_c < C)[None, :],
            other=0.0,
        ).to(tl.float32)
        b_out, b_broken = weighted_sum(b_weight, m_edge, b_grad, b_out, b_broken)
    b_out = tl.where(b_broken > 0, float("nan"), b_out)
    tl.store(
        grad_value_ptr + i_graph * N * C + o_col[:, None] * C + o_c[None, :],
        b_out.to(grad_value_ptr.dtype.element_ty),
        mask=(o_col < N)[:, None] & (o_c < C)[None, :],
    )


# Small blocks: graphs are small, so there are few programs, and larger ones spill.
OPTIONS: dict[str, Any] = {"BLOCK_N": 16, "BLOCK_C": 32, "num_warps": 4, "num_stages": 2}


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
    values, target_score, source_score, adjacency = (
        tensor.contiguous() for tensor in (values, target_score, source_score, adjacency)
    )
    batch, heads, nodes, channels = values.shape
    out = torch.empty_like(values)
    weights = values.new_empty((batch, heads, nodes, nodes) if return_weights else (0,))
    strips = max(1, triton.cdiv(channels, OPTIONS["BLOCK_C"]))
    launch(
        forward_kernel,
        (batch * heads, triton.cdiv(nodes, OPTIONS["BLOCK_N"]), strips),
        values,
        target_score,
        source_score,
        adjacency,
        out,
        weights,
        nodes * nodes if adjacency.dim() == 3 else 0,
        heads,
        nodes,
        channels,
        negative_slope,
        WEIGHTS=return_weights,
        **OPTIONS,
    )
    return out, weights


def backward(
    grad_out: Tensor,
    grad_weights: Tensor | None,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values and both scores.

    Args:
        grad_out: (B, H, N, C).
        grad_weights: (B, H, N, N), or None if the weights were not asked for.
        values: as in `forward`, like the rest.
        target_score: (B, H, N).
        source_score: (B, H, N).
        adjacency: (N, N) or (B, N, N), bool.
        negative_slope: of the leaky ReLU.
    """
    weights = grad_weights is not None
    unread = grad_out if grad_weights is None else grad_weights
    grad_out, grad_each, values, target_score, source_score, adjacency = (
        tensor.contiguous()
        for tensor in (grad_out, unread, values, target_score, source_score, adjacency)
    )
    batch, heads, nodes, channels = values.shape
    statistics = values.new_empty((3, batch, heads, nodes), dtype=torch.float32)
    grads = tuple(torch.empty_like(tensor) for tensor in (values, target_score, source_score))
    grad_values, grad_target, grad_source = grads
    graph = (target_score, source_score, adjacency, statistics)
    sizes = (
        nodes * nodes if adjacency.dim() == 3 else 0,
        batch * heads * nodes,
        heads,
        nodes,
        channels,
        negative_slope,
    )
    given = (grad_out, grad_each, values)
    grid = (batch * heads, triton.cdiv(nodes, OPTIONS["BLOCK_N"]))
    upcast = values.dtype == torch.float32 or INTERPRETED
    options = OPTIONS | {"WEIGHTS": weights, "UPCAST": upcast}
    launch(row_kernel, grid, *given, *graph, grad_target, *sizes, **options)
    launch(column_kernel, grid, *given, *graph, grad_source, *sizes, **options)
    strips = triton.cdiv(channels, OPTIONS["BLOCK_C"])
    launch(value_kernel, (*grid, strips), grad_out, *graph, grad_values, *sizes, **OPTIONS)
    return grad_values, grad_target, grad_source


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls with every kernel and option, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, weighted in (
        (12, 512, torch.float32, False),
        (27, 16, torch.bfloat16, False),
        (196, 40, torch.float32, True),
        (41, 64, torch.float16, True),
    ):
        values = torch.empty(2, 2, nodes, channels, dtype=dtype)
        score = values.new_empty(2, 2, nodes)
        edges = torch.empty(2, nodes, nodes, dtype=torch.bool)
        weights = values.new_empty(2, 2, nodes, nodes) if weighted else None
        yield partial(forward, values, score, score, edges, 0.2, weighted)
        yield partial(backward, values, weights, values, score, score, edges, 0.2)
