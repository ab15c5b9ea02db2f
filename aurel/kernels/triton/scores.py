"""Device functions of the KNN kernels: exact scores of a tile of pairs, "smaller is nearer".

    l2      sum (s_j - x_i)^2
    l1      sum |s_j - x_i|
    cosine  -p |p| / q_j with p = x_i.s_j and q_j = |s_j|^2 of scaled nodes: orders as the cosine
            does, without a square root; with a bias 1 - p / sqrt(q_i q_j)
    dot     -x_i.s_j

Each is one sum over the channels of a pair, of differences where it is a distance: nothing cancels,
and equal pairs have equal scores at whatever index. A score that is NaN, or not finite where
the metric is a distance, becomes +inf: a node with NaN is chosen last.
"""

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_SQUARE = tl.constexpr(1e-30)  # less than that of any scaled node other than zero


@triton.jit
def present(mask_ptr, o_n, N, HAS_MASK: tl.constexpr):
    """Return which of the nodes `o_n` of one graph exist."""
    m_n = o_n < N
    if HAS_MASK:
        m_n = tl.load(mask_ptr + o_n, mask=m_n, other=0) != 0
    return m_n


@triton.jit
def free_pairs(m_row, m_col, o_row, o_col, LOOP: tl.constexpr):
    """Return which columns a row may choose, [rows, columns]."""
    m_free = m_row[:, None] & m_col[None, :]
    if not LOOP:
        m_free = m_free & (o_row[:, None] != o_col[None, :])
    return m_free


@triton.jit
def add_bias(b_score, p_bias, m_pair):
    """Return the scores plus a bias; +inf where the sum is NaN."""
    b_score += tl.load(p_bias, mask=m_pair, other=0.0).to(tl.float32)
    return tl.where(b_score == b_score, b_score, float("inf"))


@triton.jit
def cosine_scores(b_product, b_row_square, b_square, HAS_BIAS: tl.constexpr):
    """Return cosine scores from products and sums of squares, all of the shape of the pairs."""
    b_square = tl.maximum(b_square, SMALLEST_SQUARE)
    if HAS_BIAS:
        b_row_square = tl.maximum(b_row_square, SMALLEST_SQUARE)
        return 1.0 - tl.div_rn(b_product, tl.sqrt_rn(b_row_square * b_square))
    return 0.0 - tl.div_rn(b_product * tl.abs(b_product), b_square)


@triton.jit
def score_tile(
    row_ptr,
    col_ptr,
    row_square_ptr,
    square_ptr,
    C,
    METRIC: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
):
    """Return scores [BLOCK_ROW, WIDTH] without the bias.

    The pointers are at the first row in its channel tile, at the tile of the columns, and at the
    sums of squares of both.
    """
    o_row = tl.arange(0, BLOCK_ROW)[:, None]
    o_col = tl.arange(0, WIDTH)[None, :]
    # A product of zeros gives the tile a layout in which a thread holds a square of pairs, so that
    # few loads serve many pairs.
    b_none = tl.zeros((BLOCK_ROW, 16), tl.float32)
    b_score = tl.dot(b_none, tl.zeros((16, WIDTH), tl.float32), input_precision="ieee")
    for c in tl.range(0, C, loop_unroll_factor=8):
        b_row = tl.load(row_ptr + c * ROW_WIDTH + o_row)
        b_col = tl.load(col_ptr + c * WIDTH + o_col)
        if METRIC == "l2":
            b_gap = b_col - b_row
            b_score += b_gap * b_gap
        elif METRIC == "l1":
            b_score += tl.abs(b_col - b_row)
        else:
            b_score += b_row * b_col
    if METRIC == "cosine":
        b_row_square = tl.load(row_square_ptr + o_row) + tl.zeros_like(b_score)
        b_square = tl.load(square_ptr + o_col) + tl.zeros_like(b_score)
        b_score = cosine_scores(b_score, b_row_square, b_square, HAS_BIAS)
    elif METRIC == "dot":
        b_score = 0.0 - b_score
    if METRIC == "dot":
        return tl.where(b_score == b_score, b_score, float("inf"))
    return tl.where(tl.abs(b_score) < float("inf"), b_score, float("inf"))
