"""Forward kernel of `pair_pool`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.pair_tiles import attend, matrix_tile


@triton.jit
def forward_kernel(
    query_ptr,
    key_ptr,
    gram_ptr,
    mean_ptr,
    scatter_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a target node."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    key_ptr += i_target * D * E
    b_key = matrix_tile(key_ptr, o_p, o_e, D, E)
    if GRAM:
        b_gram = matrix_tile(gram_ptr + i_target * D * D, o_p, o_p, D, D)
    for j in range(N):
        p_query = query_ptr + (i_batch * N + j) * D * E
        b_sum = tl.zeros((BLOCK_D,), tl.float32)
        b_shift = tl.zeros((BLOCK_D,), tl.float32)
        b_scatter = tl.zeros((BLOCK_ROW, BLOCK_D), tl.float32)
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            b_query = matrix_tile(p_query, o_d, o_e, D, E)
            # [BLOCK_ROW, BLOCK_D]
            b_attention = attend(
                b_query, b_key, p_query, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_sum += tl.sum(b_attention, axis=0)
            if GRAM:
                b_shift = tl.where(d0 == 0, b_sum / min(BLOCK_ROW, D), b_shift)
                b_deviation = tl.where((o_d < D)[:, None], b_attention - b_shift[None, :], 0.0)
                b_scatter += b_deviation * tl.dot(b_deviation, b_gram, input_precision=PRECISION)
        i_pair = i_target * N + j
        b_mean = b_sum / D
        tl.store(mean_ptr + i_pair * D + o_p, b_mean, mask=o_p < D)
        if GRAM:
            scatter = tl.sum(b_scatter)
            if BLOCK_ROW < D:
                b_shift = b_mean - b_shift
                scatter -= D * tl.sum(b_shift[:, None] * b_gram * b_shift[None, :])
            tl.store(scatter_ptr + i_pair, scatter)
