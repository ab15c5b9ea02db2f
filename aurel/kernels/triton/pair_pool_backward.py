"""Backward kernels of `pair_pool`, whose docstring has the equations."""

from __future__ import annotations

import triton
import triton.language as tl

from aurel.kernels.triton.pair_tiles import attend, matrix_tile, square_tile


@triton.jit
def symmetric_kernel(gram_ptr, symmetric_ptr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write G + G^T of one target, with rows of BLOCK_D, zero where it ends.

    It is read for every pair, which is faster if rows are aligned.
    """
    i_target = tl.program_id(0).to(tl.int64)
    o_p = tl.arange(0, BLOCK_D)
    m_tile = (o_p < D)[:, None] & (o_p < D)[None, :]
    gram_ptr += i_target * D * D
    b_gram = tl.load(gram_ptr + o_p[:, None] * D + o_p[None, :], mask=m_tile, other=0.0)
    b_gram += tl.load(gram_ptr + o_p[None, :] * D + o_p[:, None], mask=m_tile, other=0.0)
    tl.store(symmetric_ptr + (i_target * BLOCK_D + o_p[:, None]) * BLOCK_D + o_p[None, :], b_gram)


@triton.jit
def score_gradient(
    b_attention,
    b_gram,
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    o_d,
    o_p,
    D: tl.constexpr,
    GRAM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return rows of dS and X of one pair; b_gram is G + G^T."""
    b_mean = tl.load(mean_ptr + o_p, mask=o_p < D, other=0.0)
    b_deviation = tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)
    b_grad = tl.load(grad_mean_ptr + o_p, mask=o_p < D, other=0.0)[None, :] / D
    if GRAM:
        b_weighted = b_deviation * tl.load(grad_scatter_ptr)
        b_grad = b_grad + tl.dot(b_weighted, b_gram, input_precision=PRECISION)
    b_grad = b_grad * b_attention
    return b_grad - b_attention * tl.sum(b_grad, axis=1)[:, None], b_deviation


@triton.jit
def target_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    gram_ptr,
    grad_key_ptr,
    grad_gram_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a target node and a strip of E; the first strip's program also writes dG."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    key_ptr += i_target * D * E
    b_key = matrix_tile(key_ptr, o_p, o_e, D, E)
    b_gram = square_tile(gram_ptr, i_target, BLOCK_D) if GRAM else b_key
    b_grad_key = tl.zeros((BLOCK_D, BLOCK_E), tl.float32)
    b_grad_gram = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
    blocks = tl.cdiv(D, BLOCK_ROW)
    for step in range(N * blocks):
        j = step // blocks
        o_d = (step % blocks) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
        i_pair = i_target * N + j
        p_query = query_ptr + (i_batch * N + j) * D * E
        b_query = matrix_tile(p_query, o_d, o_e, D, E)
        b_attention = attend(b_query, b_key, p_query, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
        b_grad, b_deviation = score_gradient(
            b_attention,
            b_gram,
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            o_d,
            o_p,
            D,
            GRAM,
            PRECISION,
        )
        b_grad_key = tl.dot(tl.trans(b_grad), b_query, b_grad_key, input_precision=PRECISION)
        if GRAM:
            b_weighted = tl.trans(b_deviation * tl.load(grad_scatter_ptr + i_pair))
            b_grad_gram = tl.dot(b_weighted, b_deviation, b_grad_gram, input_precision=PRECISION)
    m_p = (o_p < D)[:, None]
    p_grad_key = grad_key_ptr + i_target * D * E + o_p[:, None] * E + o_e[None, :]
    tl.store(p_grad_key, b_grad_key, mask=m_p & (o_e < E)[None, :])
    if GRAM:
        p_grad_gram = grad_gram_ptr + i_target * D * D + o_p[:, None] * D + o_p[None, :]
        m_gram = m_p & (o_p < D)[None, :] & (tl.program_id(2) == 0)
        tl.store(p_grad_gram, b_grad_gram, mask=m_gram)


@triton.jit
def source_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    gram_ptr,
    grad_query_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own BLOCK_ROW tokens of a source node and a strip of E."""
    blocks = tl.cdiv(D, BLOCK_ROW)
    i_batch = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) // blocks
    o_d = (tl.program_id(1) % blocks) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    query_ptr += (i_batch * N + j) * D * E
    b_query = matrix_tile(query_ptr, o_d, o_e, D, E)
    b_grad_query = tl.zeros((BLOCK_ROW, BLOCK_E), tl.float32)
    for i in range(N):
        i_target = i_batch * N + i
        i_pair = i_target * N + j
        p_key = key_ptr + i_target * D * E
        b_key = matrix_tile(p_key, o_p, o_e, D, E)
        b_gram = square_tile(gram_ptr, i_target, BLOCK_D) if GRAM else b_key
        b_attention = attend(b_query, b_key, query_ptr, p_key, o_d, o_p, D, E, BLOCK_E, PRECISION)
        b_grad, _ = score_gradient(
            b_attention,
            b_gram,
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            o_d,
            o_p,
            D,
            GRAM,
            PRECISION,
        )
        b_grad_query = tl.dot(b_grad, b_key, b_grad_query, input_precision=PRECISION)
    tl.store(
        grad_query_ptr + (i_batch * N + j) * D * E + o_d[:, None] * E + o_e[None, :],
        b_grad_query,
        mask=(o_d < D)[:, None] & (o_e < E)[None, :],
    )
