"""Backward kernels of `pair_pool_large`."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.pair_tiles import (
    attention_tile,
    deviation_tile,
    load_statistics,
    matrix_tile,
    mixed_tile,
    pair_of,
    row_statistics,
)


@triton.jit
def gradient_tile(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    symmetric_ptr,
    b_max,
    b_sum,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return tiles of A and of dA of one pair."""
    b_grad = tl.load(grad_mean_ptr + o_p, mask=o_p < D, other=0.0)[None, :] / D
    if GRAM:
        b_mixed = mixed_tile(
            query_ptr,
            key_ptr,
            symmetric_ptr,
            mean_ptr,
            b_max,
            b_sum,
            o_d,
            o_p,
            D,
            E,
            BLOCK_D,
            BLOCK_E,
            PRECISION,
        )
        b_grad = b_grad + tl.load(grad_scatter_ptr) * b_mixed
    return attention_tile(
        query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
    ), b_grad


@triton.jit
def row_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    symmetric_ptr,
    statistic_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own rows of one pair: write their statistics and rowsum(A * dA) for the others."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    b_max, b_sum = row_statistics(query_ptr, key_ptr, o_d, D, E, BLOCK_D, BLOCK_E, PRECISION)
    b_shared = tl.zeros((BLOCK_ROW,), tl.float32)
    for p0 in range(0, D, BLOCK_D):
        o_p = p0 + tl.arange(0, BLOCK_D)
        b_attention, b_grad = gradient_tile(
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            query_ptr,
            key_ptr,
            symmetric_ptr + i_target * D * D,
            b_max,
            b_sum,
            o_d,
            o_p,
            D,
            E,
            GRAM,
            BLOCK_D,
            BLOCK_E,
            PRECISION,
        )
        b_shared += tl.sum(b_attention * b_grad, axis=1)
    p_statistic = statistic_ptr + i_pair * D + o_d
    tl.store(p_statistic, b_max, mask=o_d < D)
    tl.store(p_statistic + statistic_stride, b_sum, mask=o_d < D)
    # not 2 * stride, which may need more than the 32 bits that a stride fits into
    tl.store(p_statistic + statistic_stride + statistic_stride, b_shared, mask=o_d < D)


@triton.jit
def score_gradient(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    symmetric_ptr,
    statistic_ptr,
    statistic_stride,
    i_target,
    i_source,
    i_pair,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of dS of one pair."""
    statistic_ptr += i_pair * D
    b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
    b_shared = tl.load(
        statistic_ptr + statistic_stride + statistic_stride + o_d, mask=o_d < D, other=0.0
    )
    b_attention, b_grad = gradient_tile(
        grad_mean_ptr + i_pair * D,
        grad_scatter_ptr + i_pair,
        mean_ptr + i_pair * D,
        query_ptr + i_source * D * E,
        key_ptr + i_target * D * E,
        symmetric_ptr + i_target * D * D,
        b_max,
        b_sum,
        o_d,
        o_p,
        D,
        E,
        GRAM,
        BLOCK_D,
        BLOCK_E,
        PRECISION,
    )
    return b_attention * (b_grad - b_shared[:, None])


@triton.jit
def target_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    symmetric_ptr,
    statistic_ptr,
    grad_key_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own tokens of a target node and a strip of E: write dR."""
    i_target = tl.program_id(0).to(tl.int64)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    b_grad_key = tl.zeros((BLOCK_D, BLOCK_OUT), tl.float32)
    for j in range(N):
        i_source = i_target // N * N + j
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            # [BLOCK_ROW, BLOCK_D]
            b_grad = score_gradient(
                grad_mean_ptr,
                grad_scatter_ptr,
                mean_ptr,
                query_ptr,
                key_ptr,
                symmetric_ptr,
                statistic_ptr,
                statistic_stride,
                i_target,
                i_source,
                i_target * N + j,
                o_d,
                o_p,
                D,
                E,
                GRAM,
                BLOCK_D,
                BLOCK_E,
                PRECISION,
            )
            b_query = matrix_tile(query_ptr + i_source * D * E, o_d, o_e, D, E)
            b_grad_key = tl.dot(tl.trans(b_grad), b_query, b_grad_key, input_precision=PRECISION)
    tl.store(
        grad_key_ptr + i_target * D * E + o_p[:, None] * E + o_e[None, :],
        b_grad_key,
        mask=(o_p < D)[:, None] & (o_e < E)[None, :],
    )


@triton.jit
def source_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    symmetric_ptr,
    statistic_ptr,
    grad_query_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own tokens of a source node and a strip of E: write dL."""
    i_source = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_e = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    b_grad_query = tl.zeros((BLOCK_ROW, BLOCK_OUT), tl.float32)
    for i in range(N):
        i_target = i_source // N * N + i
        for p0 in range(0, D, BLOCK_D):
            o_p = p0 + tl.arange(0, BLOCK_D)
            # [BLOCK_ROW, BLOCK_D]
            b_grad = score_gradient(
                grad_mean_ptr,
                grad_scatter_ptr,
                mean_ptr,
                query_ptr,
                key_ptr,
                symmetric_ptr,
                statistic_ptr,
                statistic_stride,
                i_target,
                i_source,
                i_target * N + i_source % N,
                o_d,
                o_p,
                D,
                E,
                GRAM,
                BLOCK_D,
                BLOCK_E,
                PRECISION,
            )
            b_key = matrix_tile(key_ptr + i_target * D * E, o_p, o_e, D, E)
            b_grad_query = tl.dot(b_grad, b_key, b_grad_query, input_precision=PRECISION)
    tl.store(
        grad_query_ptr + i_source * D * E + o_d[:, None] * E + o_e[None, :],
        b_grad_query,
        mask=(o_d < D)[:, None] & (o_e < E)[None, :],
    )


@triton.jit
def gram_kernel(
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    statistic_ptr,
    grad_gram_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a tile of one target's dG."""
    i_target = tl.program_id(0).to(tl.int64)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    o_q = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    key_ptr += i_target * D * E
    b_out = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
    for j in range(N):
        i_pair = i_target * N + j
        p_query = query_ptr + (i_target // N * N + j) * D * E
        p_mean = mean_ptr + i_pair * D
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            b_max, b_sum = load_statistics(statistic_ptr + i_pair * D, statistic_stride, o_d, D)
            # [BLOCK_ROW, BLOCK_D]
            b_left = attention_tile(
                p_query, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_left = deviation_tile(b_left, p_mean, o_d, o_p, D)
            b_left = b_left * tl.load(grad_scatter_ptr + i_pair)
            b_right = attention_tile(
                p_query, key_ptr, b_max, b_sum, o_d, o_q, D, E, BLOCK_E, PRECISION
            )
            b_right = deviation_tile(b_right, p_mean, o_d, o_q, D)
            b_out = tl.dot(tl.trans(b_left), b_right, b_out, input_precision=PRECISION)
    tl.store(
        grad_gram_ptr + i_target * D * D + o_p[:, None] * D + o_q[None, :],
        b_out,
        mask=(o_p < D)[:, None] & (o_q < D)[None, :],
    )
