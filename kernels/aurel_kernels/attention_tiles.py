"""Device functions of graph attention: scores and weights of a tile, and products with them."""

from __future__ import annotations

import triton
import triton.language as tl

PRECISION = tl.constexpr("ieee")


@triton.jit
def edge_tile(target_ptr, source_ptr, adjacency_ptr, o_i, o_j, N, negative_slope):
    """Return scores, their slopes and where edges are; o_i and o_j broadcast to the tile."""
    m_edge = (o_i < N) & (o_j < N)
    m_edge = m_edge & (tl.load(adjacency_ptr + o_i * N + o_j, mask=m_edge, other=0) != 0)
    b_target = tl.load(target_ptr + o_i, mask=o_i < N, other=0.0).to(tl.float32)
    b_source = tl.load(source_ptr + o_j, mask=o_j < N, other=0.0).to(tl.float32)
    b_sum = b_target + b_source
    b_slope = tl.where(b_sum > 0, 1.0, negative_slope)
    return b_sum * b_slope, b_slope, m_edge


@triton.jit
def row_statistics(
    target_ptr,
    source_ptr,
    adjacency_ptr,
    o_row,
    N,
    negative_slope,
    BLOCK_N: tl.constexpr,
):
    """Return the largest score of each row (0 where it has none) and the sum of exponentials."""
    b_max = tl.full((BLOCK_N,), -float("inf"), tl.float32)
    b_sum = tl.zeros((BLOCK_N,), tl.float32)
    b_shift = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_col = n0 + tl.arange(0, BLOCK_N)
        b_score, _, m_edge = edge_tile(
            target_ptr, source_ptr, adjacency_ptr, o_row[:, None], o_col[None, :], N, negative_slope
        )
        b_score = tl.where(m_edge, b_score, -float("inf"))
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_score, axis=1))
        b_shift = tl.where(b_max == -float("inf"), 0.0, b_max)
        b_sum = b_sum * tl.exp(b_before - b_shift)
        b_sum += tl.sum(tl.exp(b_score - b_shift[:, None]), axis=1)
    return b_shift, b_sum


@triton.jit
def weighted_sum(b_weight, m_edge, b_value, b_out, b_broken):
    """Add weight @ value, finite values only, and count along edges those that are not."""
    m_finite = tl.abs(b_value) < float("inf")
    b_out = tl.dot(b_weight, tl.where(m_finite, b_value, 0.0), b_out, input_precision=PRECISION)
    # Zeros, ones and their float32 sums are exact in half precision, and fast.
    b_bad = tl.where(m_finite, 0.0, 1.0).to(tl.float16)
    return b_out, tl.dot(m_edge.to(tl.float16), b_bad, b_broken)


@triton.jit
def weight_tile(target_ptr, source_ptr, adjacency_ptr, o_i, o_j, b_max, b_sum, N, negative_slope):
    """Return weights, slopes and edges; the statistics of the rows broadcast to the tile."""
    b_score, b_slope, m_edge = edge_tile(
        target_ptr, source_ptr, adjacency_ptr, o_i, o_j, N, negative_slope
    )
    return tl.where(m_edge, tl.exp(b_score - b_max) / b_sum, 0.0), b_slope, m_edge


@triton.jit
def product_tile(
    left_ptr,
    right_ptr,
    o_row,
    o_col,
    N,
    C,
    UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return the inner products of rows of one (N, C) array with rows of another.

    Products of halves are exact in float32, so they need no upcast but in the interpreter, which
    multiplies bfloat16 wrongly.
    """
    b_product = tl.zeros((BLOCK_N, BLOCK_N), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        b_left = tl.load(
            left_ptr + o_row[:, None] * C + o_c[None, :],
            mask=(o_row < N)[:, None] & (o_c < C)[None, :],
            other=0.0,
        )
        b_right = tl.load(
            right_ptr + o_col[None, :] * C + o_c[:, None],
            mask=(o_col < N)[None, :] & (o_c < C)[:, None],
            other=0.0,
        )
        if UPCAST:
            b_left = b_left.to(tl.float32)
            b_right = b_right.to(tl.float32)
        b_product = tl.dot(b_left, b_right, b_product, input_precision=PRECISION)
    return b_product
