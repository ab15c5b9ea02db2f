"""Device functions that choose the K smallest scores of each row, ties to the lowest column."""

from __future__ import annotations

import triton
import triton.language as tl

LAST = tl.constexpr(0x7FFFFFFFFFFFFFFF)
SHORT_LAST = tl.constexpr(0x7FFFFFFF)
NO_COLUMN = tl.constexpr(0x7FFFFFFF)


@triton.jit
def select_nearest(
    b_score,
    m_free,
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
    b_column = tl.arange(0, BLOCK_COL)[None, :] + tl.zeros((BLOCK_ROW, BLOCK_COL), tl.int32)
    for slot in range(K):
        b_least = tl.min(tl.where(m_free, b_score, float("inf")), axis=1)
        m_least = m_free & (b_score == b_least[:, None])
        b_chosen = tl.min(tl.where(m_least, b_column, NO_COLUMN), axis=1)
        m_free = m_free & (b_column != b_chosen[:, None])
        b_chosen = tl.where(b_chosen == NO_COLUMN, -1, b_chosen)
        b_neighbor = tl.where(o_k[None, :] == slot, b_chosen[:, None], b_neighbor)
    return b_neighbor


@triton.jit
def ordered_bits(b_score):
    """Return int32 with the order of the scores, none of them NaN; -0.0 counts as 0.0."""
    b_bits = tl.where(b_score == 0.0, 0.0, b_score).to(tl.int32, bitcast=True)
    return b_bits ^ ((b_bits >> 31) & 0x7FFFFFFF)  # bits of negative floats descend


@triton.jit
def pack_keys(b_score, m_free, b_column):
    """Return int64 keys whose order is (score, column); `LAST` where the column is not free.

    The column is that of b_score, or broadcasts to it.
    """
    b_key = (ordered_bits(b_score).to(tl.int64) << 32) | b_column.to(tl.int64)
    return tl.where(m_free, b_key, LAST)


@triton.jit
def unpack_columns(b_key):
    """Return the int32 columns of `pack_keys`; -1 for `LAST`."""
    return tl.where(b_key == LAST, -1, b_key & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def pack_short_keys(b_score, b_index, BITS: tl.constexpr):
    """Return int32 keys of finite scores, rounded down so that BITS bits are left for an index.

    A score of +inf gives `SHORT_LAST`.
    """
    b_key = (ordered_bits(b_score) >> BITS << BITS) | b_index
    return tl.where(b_score < float("inf"), b_key, SHORT_LAST)


@triton.jit
def unpack_indices(b_key, BITS: tl.constexpr):
    """Return the indices of `pack_short_keys`; -1 for `SHORT_LAST`."""
    return tl.where(b_key == SHORT_LAST, -1, b_key & ((1 << BITS) - 1))


@triton.jit
def unpack_rounded_scores(b_key, BITS: tl.constexpr):
    """Return the rounded scores of `pack_short_keys`; +inf for `SHORT_LAST`."""
    b_bits = b_key >> BITS << BITS
    b_bits = b_bits ^ ((b_bits >> 31) & 0x7FFFFFFF)
    return tl.where(b_key == SHORT_LAST, float("inf"), b_bits.to(tl.float32, bitcast=True))


@triton.jit
def merge_keys(b_best, b_key, BLOCK_K: tl.constexpr):
    """Return the BLOCK_K smallest keys of a list and a tile of keys, in the form of the list.

    The list holds complemented keys in ascending order: the smallest key comes last. It starts
    from `~LAST`, or `~SHORT_LAST`.
    """
    # the larger of an ascending and a descending list, slot by slot, are the best of both
    return tl.bitonic_merge(tl.maximum(b_best, tl.topk(~b_key, BLOCK_K)))


@triton.jit
def nearest_first(b_best, K: tl.constexpr, BLOCK_ROW: tl.constexpr, BLOCK_K: tl.constexpr):
    """Return the columns of a list of `merge_keys`, -1 from slot K on."""
    o_k = tl.arange(0, BLOCK_K)
    o_last = tl.broadcast_to((BLOCK_K - 1 - o_k)[None, :], (BLOCK_ROW, BLOCK_K))
    b_neighbor = tl.gather(unpack_columns(~b_best), o_last, axis=1)
    return tl.where((o_k < K)[None, :], b_neighbor, -1)
