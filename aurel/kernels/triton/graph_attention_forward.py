"""Forward kernel of `graph_attention`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.attention_tiles import (
    all_finite,
    graph_weights,
    head_of,
    node_tile,
    sum_over_sources,
)


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
    pointers = (target_ptr, source_ptr, adjacency_ptr)
    strides = (score_stride_b, score_stride_h, score_stride_n, adjacency_stride_b)
    head = head_of(i_graph, H, pointers, strides, N, negative_slope)
    # [BLOCK_N, BLOCK_N]
    b_weight, _, _, b_max, b_sum = graph_weights(head, o_n)
    value_ptr += i_batch * value_stride_b + i_head * value_stride_h
    # [BLOCK_N, BLOCK_C]
    b_value = node_tile(value_ptr, o_n, o_c, N, C, value_stride_n).to(tl.float32)
    b_out = tl.dot(b_weight, b_value, input_precision=PRECISION)
    if not all_finite(b_out):
        b_out = sum_over_sources(head, value_ptr, b_max, b_sum, o_n, o_c, value_stride_n, C)
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
