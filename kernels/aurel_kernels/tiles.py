"""Device functions of the KNN kernels: score tiles, and exact selection of the K nearest.

Scores are "smaller is nearer" and drop what is constant along a row, which leaves the ranking as
it is and saves a rounding:

    l2      |x_j|^2 - 2 x_i.x_j, after a shift of the origin into the middle of the nodes
    l1      sum |x_i - x_j|
    cosine  -p |p| / |x_j|^2 with p = x_i.x_j: orders as the cosine does, without a square root
    dot     -x_i.x_j

On integer-valued features all four are exact up to the one division, which is correctly rounded,
so that equal distances stay equal. A score that is NaN, or not finite where the metric is a
distance, becomes +inf: a broken node is chosen last. Ties go to the lowest index.
"""

from __future__ import annotations

import triton
import triton.language as tl

LAST = tl.constexpr(0x7FFFFFFFFFFFFFFF)
NOBODY = tl.constexpr(0x7FFFFFFF)


@triton.jit
def present(mask_ptr, o_n, N, HAS_MASK: tl.constexpr):
    """Return which of the nodes `o_n` of one graph exist."""
    m_n = o_n < N
    if HAS_MASK:
        m_n = tl.load(mask_ptr + o_n, mask=m_n, other=0) != 0
    return m_n


@triton.jit
def gaps_to(b_x, m_n, b_center):
    """Return |x - center| [BLOCK_C, BLOCK_N]; +inf where a node is absent or not finite."""
    b_gap = tl.abs(b_x - b_center[:, None])
    return tl.where(m_n[None, :] & (b_gap < float("inf")), b_gap, float("inf"))


@triton.jit
def finite_sum(b_x, m_n):
    """Return the sums [BLOCK_C] over the nodes that are present and finite."""
    m_x = m_n[None, :] & (tl.abs(b_x) < float("inf"))
    return tl.sum(tl.where(m_x, b_x, 0.0), axis=1)


@triton.jit
def finite_value(x_ptr, o_n, o_c, C):
    """Return the values [BLOCK_C] of node o_n[c] in channel o_c[c]; 0 where not finite."""
    b_x = tl.load(x_ptr + o_n * C + o_c, mask=o_c < C, other=0.0).to(tl.float32)
    return tl.where(tl.abs(b_x) < float("inf"), b_x, 0.0)


@triton.jit
def score_tile(
    x_ptr,
    shift_ptr,
    o_row,
    o_col,
    m_col,
    N,
    C,
    METRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Return scores [BLOCK_ROW, BLOCK_COL] between nodes of one graph.

    For l2 the origin moves, channel by channel, to the value nearest to the mean of the nodes that
    exist. A mean alone would keep products from cancelling as well; a value of the data also keeps
    integers integer. A tile of the `WHOLE` graph finds it itself; otherwise `shift_ptr` (C) has it.
    """
    b_score = tl.zeros((BLOCK_ROW, BLOCK_COL), tl.float32)
    b_square = tl.zeros((BLOCK_COL,), tl.float32)
    if WHOLE:
        b_count = tl.maximum(tl.sum(m_col.to(tl.float32), axis=0), 1.0)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        m_c = o_c < C
        # [BLOCK_ROW, BLOCK_C]
        b_row = tl.load(
            x_ptr + o_row[:, None] * C + o_c[None, :],
            mask=(o_row < N)[:, None] & m_c[None, :],
            other=0.0,
        )
        if METRIC == "l1":
            # [BLOCK_COL, BLOCK_C]
            b_col = tl.load(
                x_ptr + o_col[:, None] * C + o_c[None, :],
                mask=(o_col < N)[:, None] & m_c[None, :],
                other=0.0,
            )
            b_gap = b_row.to(tl.float32)[:, None, :] - b_col.to(tl.float32)[None, :, :]
            b_score += tl.sum(tl.abs(b_gap), axis=2)
        else:
            # [BLOCK_C, BLOCK_COL]
            b_col = tl.load(
                x_ptr + o_col[None, :] * C + o_c[:, None],
                mask=(o_col < N)[None, :] & m_c[:, None],
                other=0.0,
            )
            if UPCAST:
                b_row = b_row.to(tl.float32)
                b_col = b_col.to(tl.float32)
            if METRIC == "l2":
                if WHOLE:
                    b_mean = finite_sum(b_col, m_col) / b_count
                    o_middle = tl.argmin(gaps_to(b_col, m_col, b_mean), axis=1)
                    b_shift = finite_value(x_ptr, o_middle, o_c, C)
                else:
                    b_shift = tl.load(shift_ptr + o_c, mask=m_c, other=0.0)
                b_row -= b_shift[None, :]
                b_col -= b_shift[:, None]
            # "ieee": tf32 would choose other neighbours
            b_score = tl.dot(b_row, b_col, b_score, input_precision="ieee")
            if METRIC != "dot":
                b_wide = b_col.to(tl.float32)
                b_square += tl.sum(b_wide * b_wide, axis=0)
    if METRIC == "l2":
        b_score = b_square[None, :] - 2.0 * b_score
    elif METRIC == "cosine":
        b_square = tl.maximum(b_square, 1e-24)[None, :] + tl.zeros_like(b_score)
        b_score = 0.0 - tl.div_rn(b_score * tl.abs(b_score), b_square)
    elif METRIC == "dot":
        b_score = 0.0 - b_score
    m_known = b_score == b_score
    if METRIC != "dot":
        m_known = m_known & (tl.abs(b_score) < float("inf"))
    return tl.where(m_known, b_score, float("inf"))


@triton.jit
def select_nearest(
    b_score,
    m_free,
    o_col,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
):
    """Return the K nearest free columns [BLOCK_ROW, BLOCK_K], nearest first, -1 where none is left.

    Two minima a slot: the smallest score, then the lowest column that has it.
    """
    o_k = tl.arange(0, BLOCK_K)
    b_neighbor = tl.full((BLOCK_ROW, BLOCK_K), -1, tl.int32)
    b_column = o_col[None, :] + tl.zeros((BLOCK_ROW, BLOCK_COL), tl.int32)
    for slot in range(K):
        b_least = tl.min(tl.where(m_free, b_score, float("inf")), axis=1)
        m_least = m_free & (b_score == b_least[:, None])
        b_chosen = tl.min(tl.where(m_least, b_column, NOBODY), axis=1)
        m_free = m_free & (b_column != b_chosen[:, None])
        b_chosen = tl.where(b_chosen == NOBODY, -1, b_chosen)
        b_neighbor = tl.where(o_k[None, :] == slot, b_chosen[:, None], b_neighbor)
    return b_neighbor


@triton.jit
def pack_keys(b_score, m_free, o_col, BLOCK_ROW: tl.constexpr, BLOCK_COL: tl.constexpr):
    """Return int64 keys whose order is (score, column); `LAST` where the column is not free.

    No score is -0.0, which would come before 0.0: all are sums, or taken from 0.0.
    """
    b_bits = b_score.to(tl.int32, bitcast=True)
    b_bits = b_bits ^ ((b_bits >> 31) & 0x7FFFFFFF)  # negative floats order backwards
    b_column = (o_col[None, :] + tl.zeros((BLOCK_ROW, BLOCK_COL), tl.int32)).to(tl.int64)
    return tl.where(m_free, (b_bits.to(tl.int64) << 32) | b_column, LAST)


@triton.jit
def unpack_columns(b_key):
    """Return the int32 columns of `pack_keys`; -1 for `LAST`."""
    return tl.where(b_key == LAST, -1, b_key & 0xFFFFFFFF).to(tl.int32)
