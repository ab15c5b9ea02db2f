"""Forward kernels of `pair_pool_large`."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.pair_tiles import (
    attention_tile,
    deviation_tile,
    load_statistics,
    mixed_tile,
    pair_of,
    row_statistics,
)


@triton.jit
def statistic_kernel(
    query_ptr,
    key_ptr,
    statistic_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own rows of one pair: write their statistics."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    b_max, b_sum = row_statistics(
        query_ptr + i_source * D * E,
        key_ptr + i_target * D * E,
        o_d,
        D,
        E,
        BLOCK_D,
        BLOCK_E,
        PRECISION,
    )
    p_statistic = statistic_ptr + i_pair * D + o_d
    tl.store(p_statistic, b_max, mask=o_d < D)
    tl.store(p_statistic + statistic_stride, b_sum, mask=o_d < D)


@triton.jit
def mean_kernel(
    query_ptr,
    key_ptr,
    statistic_ptr,
    mean_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own columns of one pair."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    statistic_ptr += i_pair * D
    b_sum_rows = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_ROW):
        o_d = d0 + tl.arange(0, BLOCK_ROW)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
        b_attention = attention_tile(
            query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
        )
        b_sum_rows += tl.sum(b_attention, axis=0)
    tl.store(mean_ptr + i_pair * D + o_p, b_sum_rows / D, mask=o_p < D)


@triton.jit
def scatter_kernel(
    query_ptr,
    key_ptr,
    gram_ptr,
    statistic_ptr,
    mean_ptr,
    scatter_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own one pair."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    gram_ptr += i_target * D * D
    statistic_ptr += i_pair * D
    mean_ptr += i_pair * D
    b_scatter = tl.zeros((BLOCK_ROW, BLOCK_D), tl.float32)
    for d0 in range(0, D, BLOCK_ROW):
        o_d = d0 + tl.arange(0, BLOCK_ROW)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
        for p0 in range(0, D, BLOCK_D):
            o_p = p0 + tl.arange(0, BLOCK_D)
            # [BLOCK_ROW, BLOCK_D]
            b_mixed = mixed_tile(
                query_ptr,
                key_ptr,
                gram_ptr,
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
            b_attention = attention_tile(
                query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_scatter += b_mixed * deviation_tile(b_attention, mean_ptr, o_d, o_p, D)
    tl.store(scatter_ptr + i_pair, tl.sum(b_scatter))
