"""Device functions of pair pooling: tiles of matrices, of scores, of attention."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def matrix_tile(ptr, o_row, o_col, rows: tl.constexpr, columns: tl.constexpr):
    """Return a tile of a contiguous matrix, zero where it ends."""
    return tl.load(
        ptr + o_row[:, None] * columns + o_col[None, :],
        mask=(o_row < rows)[:, None] & (o_col < columns)[None, :],
        other=0.0,
    )


@triton.jit
def square_tile(ptr, i_matrix, BLOCK_D: tl.constexpr):
    """Return one of many matrices of the size of a tile."""
    o_d = tl.arange(0, BLOCK_D)
    return tl.load(ptr + (i_matrix * BLOCK_D + o_d[:, None]) * BLOCK_D + o_d[None, :])


@triton.jit
def score_tile(
    query_ptr,
    key_ptr,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return products of queries o_d with keys o_p, strip by strip of E."""
    b_score = tl.zeros((o_d.shape[0], o_p.shape[0]), tl.float32)
    for e0 in range(0, E, BLOCK_E):
        o_e = e0 + tl.arange(0, BLOCK_E)
        b_query = matrix_tile(query_ptr, o_d, o_e, D, E)
        b_key = matrix_tile(key_ptr, o_p, o_e, D, E)
        b_score = tl.dot(b_query, tl.trans(b_key), b_score, input_precision=PRECISION)
    return b_score


@triton.jit
def row_statistics(
    query_ptr,
    key_ptr,
    o_d,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the largest score of each row o_d, and the sum of exponentials of scores less it."""
    b_max = tl.full((o_d.shape[0],), -float("inf"), tl.float32)
    b_sum = tl.zeros((o_d.shape[0],), tl.float32)
    for p0 in range(0, D, BLOCK_D):
        o_p = p0 + tl.arange(0, BLOCK_D)
        b_score = score_tile(query_ptr, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
        b_score = tl.where((o_p < D)[None, :], b_score, -float("inf"))
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_score, axis=1))
        b_sum = b_sum * tl.exp(b_before - b_max)
        b_sum += tl.sum(tl.exp(b_score - b_max[:, None]), axis=1)
    return b_max, b_sum


@triton.jit
def attention_tile(
    query_ptr,
    key_ptr,
    b_max,
    b_sum,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of the attention, zero outside, from the statistics of its rows."""
    b_score = score_tile(query_ptr, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
    b_weight = tl.exp(b_score - b_max[:, None]) / b_sum[:, None]
    return tl.where((o_d < D)[:, None] & (o_p < D)[None, :], b_weight, 0.0)


@triton.jit
def deviation_tile(b_attention, mean_ptr, o_d, o_p, D: tl.constexpr):
    """Return a tile of attention less the mean of its rows, zero outside."""
    b_mean = tl.load(mean_ptr + o_p, mask=o_p < D, other=0.0)
    return tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)


@triton.jit
def attend(
    b_query,
    b_key,
    query_ptr,
    key_ptr,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return rows o_d of the attention, zero outside; the pointers are read if E > BLOCK_E."""
    if E <= BLOCK_E:
        b_score = tl.dot(b_query, tl.trans(b_key), input_precision=PRECISION)
    else:
        b_score = score_tile(query_ptr, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
    b_score = tl.where((o_p < D)[None, :], b_score, -float("inf"))
    b_weight = tl.exp(b_score - tl.max(b_score, axis=1)[:, None])
    b_weight = b_weight / tl.sum(b_weight, axis=1)[:, None]
    return tl.where((o_d < D)[:, None], b_weight, 0.0)


@triton.jit
def pair_of(i_pair, N):
    """Return the indices of target and source of a pair among the nodes of all graphs."""
    i_target = i_pair // N
    return i_target, i_target // N * N + i_pair % N


@triton.jit
def load_statistics(statistic_ptr, statistic_stride, o_d, D: tl.constexpr):
    """Return largest score and sum of exponentials of the rows o_d of one pair."""
    b_max = tl.load(statistic_ptr + o_d, mask=o_d < D, other=0.0)
    b_sum = tl.load(statistic_ptr + statistic_stride + o_d, mask=o_d < D, other=1.0)
    return b_max, b_sum


@triton.jit
def mixed_tile(
    query_ptr,
    key_ptr,
    matrix_ptr,
    mean_ptr,
    b_max,
    b_sum,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of X times a matrix (D, D)."""
    b_mixed = tl.zeros((o_d.shape[0], o_p.shape[0]), tl.float32)
    for q0 in range(0, D, BLOCK_D):
        o_q = q0 + tl.arange(0, BLOCK_D)
        b_attention = attention_tile(
            query_ptr, key_ptr, b_max, b_sum, o_d, o_q, D, E, BLOCK_E, PRECISION
        )
        b_deviation = deviation_tile(b_attention, mean_ptr, o_d, o_q, D)
        b_matrix = matrix_tile(matrix_ptr, o_q, o_p, D, D)
        b_mixed = tl.dot(b_deviation, b_matrix, b_mixed, input_precision=PRECISION)
    return b_mixed
