"""K-nearest-neighbour graphs of many dense graphs at once.

x (B, N, C) -> neighbors (B, N, K) int64, nearest first, ties to the lowest index, -1 for an empty
slot. A program owns BLOCK_ROW nodes of one graph. Up to WHOLE_GRAPH nodes it sees all of the graph
in one tile and picks K times; beyond, it walks over column tiles and keeps a sorted list of the K
best packed keys. No (N, N) array reaches memory, and float32 products are never rounded to tf32.

Nothing is differentiated, so nothing is saved: a choice has no gradient. Sizes: see `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import INTERPRETED, launch
from aurel_kernels.sizes import power_of_two, size_obstacle
from aurel_kernels.tiles import (
    finite_sum,
    finite_value,
    gaps_to,
    pack_keys,
    present,
    score_tile,
    select_nearest,
    unpack_columns,
)

WHOLE_GRAPH = 64

obstacle = size_obstacle


@triton.jit
def shift_kernel(
    x_ptr,
    mask_ptr,
    shift_ptr,
    N,
    C,
    HAS_MASK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write, for each channel of one graph, the node value nearest to the mean."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    x_ptr += i_batch * N * C
    mask_ptr += i_batch * N
    b_sum = tl.zeros((BLOCK_C,), tl.float32)
    b_count = tl.zeros((BLOCK_N,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        o_n = n0 + tl.arange(0, BLOCK_N)
        m_n = present(mask_ptr, o_n, N, HAS_MASK)
        # [BLOCK_C, BLOCK_N]
        b_x = tl.load(
            x_ptr + o_n[None, :] * C + o_c[:, None],
            mask=m_n[None, :] & (o_c < C)[:, None],
            other=0.0,
        ).to(tl.float32)
        b_sum += finite_sum(b_x, m_n)
        b_count += m_n.to(tl.float32)
    b_mean = b_sum / tl.maximum(tl.sum(b_count, axis=0), 1.0)
    b_least = tl.full((BLOCK_C,), float("inf"), tl.float32)
    o_middle = tl.zeros((BLOCK_C,), tl.int32)
    for n0 in range(0, N, BLOCK_N):
        o_n = n0 + tl.arange(0, BLOCK_N)
        m_n = present(mask_ptr, o_n, N, HAS_MASK)
        b_x = tl.load(
            x_ptr + o_n[None, :] * C + o_c[:, None],
            mask=m_n[None, :] & (o_c < C)[:, None],
            other=0.0,
        ).to(tl.float32)
        b_gap, o_near = tl.min(gaps_to(b_x, m_n, b_mean), axis=1, return_indices=True)
        o_middle = tl.where(b_gap < b_least, n0 + o_near, o_middle)
        b_least = tl.minimum(b_gap, b_least)
    b_shift = finite_value(x_ptr, o_middle, o_c, C)
    tl.store(shift_ptr + i_batch * C + o_c, b_shift, mask=o_c < C)


@triton.jit
def nearest(
    x_ptr,
    shift_ptr,
    mask_ptr,
    o_row,
    N,
    C,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WHOLE: tl.constexpr,
    METRIC: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Return the neighbours [BLOCK_ROW, BLOCK_K] of nodes `o_row`; the pointers are at one graph."""
    m_row = present(mask_ptr, o_row, N, HAS_MASK)
    # complemented keys, ascending: the nearest stands last
    b_best = tl.full((BLOCK_ROW, BLOCK_K), -0x8000000000000000, tl.int64)
    for n0 in tl.static_range(0, BLOCK_COL, BLOCK_COL) if WHOLE else range(0, N, BLOCK_COL):
        o_col = n0 + tl.arange(0, BLOCK_COL)
    return b_best
