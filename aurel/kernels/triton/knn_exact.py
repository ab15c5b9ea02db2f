"""Nearest neighbors by exact scores of all pairs.

A program owns BLOCK_ROW nodes of one graph. Up to WHOLE_GRAPH sources it has all scores in one
tile and chooses K times; beyond, it goes over tiles of columns and keeps a sorted list of the best
packed keys. No (N, M) array reaches memory.

Device functions take pointers as tuples: `tiles`, to channel tiles and sums of squares of nodes and
of sources, and `masks`, to bias, mask and mask of the sources. `sizes` are N, M, C and the step of
the bias from one graph to the next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.channel_tiles import any_flag, channel_tiles, tile_width
from aurel.kernels.triton.knn_problem import Problem, Setting
from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.scores import add_bias, free_pairs, present, score_tile
from aurel.kernels.triton.selection import (
    LAST,
    merge_keys,
    nearest_first,
    pack_keys,
    select_nearest,
)
from aurel.kernels.triton.sizes import WHOLE_GRAPH


@triton.jit
def column_tile(
    tiles,
    masks,
    sizes,
    o_row,
    i_tile,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    METRIC: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Return scores [rows, WIDTH] with a tile of columns, and which of these a row may choose.

    The pointers are at the rows, and at one graph; `sizes` are N, M and C.
    """
    row_ptr, row_square_ptr, tile_ptr, square_ptr = tiles
    bias_ptr, mask_ptr, source_mask_ptr = masks
    N, M, C = sizes
    o_col = i_tile * WIDTH + tl.arange(0, WIDTH)
    m_row = present(mask_ptr, o_row, N, HAS_MASK)
    m_col = present(source_mask_ptr, o_col, M, HAS_SOURCE_MASK)
    m_free = free_pairs(m_row, m_col, o_row, o_col, LOOP)
    b_score = score_tile(
        row_ptr,
        tile_ptr + i_tile * C * WIDTH,
        row_square_ptr,
        square_ptr + i_tile * WIDTH,
        C,
        METRIC,
        HAS_BIAS,
        ROW_WIDTH,
        WIDTH,
        o_row.shape[0],
    )
    if HAS_BIAS:
        b_score = add_bias(b_score, bias_ptr + o_row[:, None] * M + o_col[None, :], m_free)
    return b_score, m_free


@triton.jit
def pointers_of(tiles, masks, sizes, i_batch, row0, ROW_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """Return `tiles` and `masks` of `nearest` as `column_tile` takes them: of one graph."""
    row_tile_ptr, row_square_ptr, tile_ptr, square_ptr = tiles
    bias_ptr, mask_ptr, source_mask_ptr = masks
    N, M, C, bias_step = sizes
    row_tiles = tl.cdiv(N, ROW_WIDTH)
    row_tile = i_batch * row_tiles + row0 // ROW_WIDTH
    row_ptr = row_tile_ptr + row_tile * C * ROW_WIDTH + row0 % ROW_WIDTH
    row_square_ptr += i_batch * row_tiles * ROW_WIDTH + row0
    tile_ptr += i_batch * tl.cdiv(M, WIDTH) * C * WIDTH
    square_ptr += i_batch * tl.cdiv(M, WIDTH) * WIDTH
    bias_ptr += i_batch * bias_step
    mask_ptr += i_batch * N
    source_mask_ptr += i_batch * M
    return (row_ptr, row_square_ptr, tile_ptr, square_ptr), (bias_ptr, mask_ptr, source_mask_ptr)


@triton.jit
def nearest(
    tiles,
    masks,
    sizes,
    i_batch,
    row0,
    count,
    RANKS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    METRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
):
    """Return the RANKS nearest [BLOCK_ROW, BLOCK_K] among the first `count` tiles of columns."""
    tiles, masks = pointers_of(tiles, masks, sizes, i_batch, row0, ROW_WIDTH, WIDTH)
    sizes = (sizes[0], sizes[1], sizes[2])
    o_row = row0 + tl.arange(0, BLOCK_ROW)
    if WHOLE:
        b_score, m_free = column_tile(
            tiles,
            masks,
            sizes,
            o_row,
            0,
            LOOP,
            HAS_BIAS,
            HAS_MASK,
            HAS_SOURCE_MASK,
            METRIC,
            ROW_WIDTH,
            WIDTH,
        )
        return select_nearest(b_score, m_free, RANKS, BLOCK_K, BLOCK_ROW, WIDTH)
    else:
        b_best = tl.full((BLOCK_ROW, BLOCK_K), ~LAST, tl.int64)
        for i_tile in range(0, count):
            b_score, m_free = column_tile(
                tiles,
                masks,
                sizes,
                o_row,
                i_tile,
                LOOP,
                HAS_BIAS,
                HAS_MASK,
                HAS_SOURCE_MASK,
                METRIC,
                ROW_WIDTH,
                WIDTH,
            )
            o_col = i_tile * WIDTH + tl.arange(0, WIDTH)
            b_best = merge_keys(b_best, pack_keys(b_score, m_free, o_col[None, :]), BLOCK_K)
        return nearest_first(b_best, RANKS, BLOCK_ROW, BLOCK_K)


@triton.jit
def store_neighbors(
    neighbor_ptr,
    b_neighbor,
    o_row,
    m_row,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Store every DILATION-th of the lists [rows, BLOCK_K]; the pointer is at one graph."""
    o_k = tl.arange(0, BLOCK_K)
    m_k = (o_k % DILATION == 0) & (o_k < K * DILATION)
    tl.store(
        neighbor_ptr + o_row[:, None] * K + (o_k // DILATION)[None, :],
        b_neighbor.to(tl.int64),
        mask=m_row[:, None] & m_k[None, :],
    )


@triton.jit
def exact_kernel(
    row_tile_ptr,
    row_square_ptr,
    tile_ptr,
    square_ptr,
    bias_ptr,
    mask_ptr,
    source_mask_ptr,
    flag_ptr,
    neighbor_ptr,
    N,
    M,
    C,
    bias_step,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    METRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    FLAGGED: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    row0 = tl.program_id(1) * BLOCK_ROW
    o_row = row0 + tl.arange(0, BLOCK_ROW)
    m_store = o_row < N
    count = tl.cdiv(M, WIDTH)
    if FLAGGED:
        # a block without a flag keeps the neighbors that it has
        flag = any_flag(flag_ptr + i_batch * N + row0, tl.minimum(N - row0, BLOCK_ROW), BLOCK_ROW)
        count = count * flag
        m_store = m_store & (flag != 0)
    b_neighbor = nearest(
        (row_tile_ptr, row_square_ptr, tile_ptr, square_ptr),
        (bias_ptr, mask_ptr, source_mask_ptr),
        (N, M, C, bias_step),
        i_batch,
        row0,
        count,
        K * DILATION,
        BLOCK_K,
        LOOP,
        HAS_BIAS,
        HAS_MASK,
        HAS_SOURCE_MASK,
        METRIC,
        WHOLE,
        ROW_WIDTH,
        WIDTH,
        BLOCK_ROW,
    )
    neighbor_ptr += i_batch * N * K
    store_neighbors(neighbor_ptr, b_neighbor, o_row, m_store, K, DILATION, BLOCK_K)


def plan(setting: Setting) -> dict[str, Any]:
    """Return the options of a kernel that calls `nearest`: a table, no search, no warm-up."""
    return {
        **setting.list_options(),
        **setting.options(),
        "METRIC": setting.metric,
        "WHOLE": setting.sources <= WHOLE_GRAPH,
        "ROW_WIDTH": tile_width(setting.nodes),
        "WIDTH": tile_width(setting.sources),
        "BLOCK_ROW": 16,  # a graph of 41 nodes spreads over three multiprocessors
        "num_warps": 4,
        # Without a limit, ptxas spills a few bytes to fit one more block.
        "maxnreg": 128,
    }


def tiles_of(problem: Problem, flags: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return channel tiles and sums of squares of the nodes, then those of the sources."""
    metric = problem.setting.metric
    rows = channel_tiles(problem.x, metric, flags)
    if problem.own:
        return (*rows, *rows)
    # flags are those of nodes: sources are read in the same graphs
    return (*rows, *channel_tiles(problem.sources, metric, flags))


def exact_neighbors(problem: Problem, neighbors: Tensor, flags: Tensor | None = None) -> None:
    """Write the neighbors, (B, N, K).

    Args:
        problem: nodes, sources and options.
        neighbors: (B, N, K) int64, written.
        flags: (B, N) int8; only blocks of rows with a flag are written. None: all are.
    """
    launch = exact_plan(problem.setting, flags is not None)
    flags_or_any = problem.x if flags is None else flags
    launch(*tiles_of(problem, flags), *problem.tensors(), flags_or_any, neighbors)


@lru_cache(PLANS)
def exact_plan(setting: Setting, flagged: bool) -> Launch:
    """Return the launch of `exact_kernel`."""
    options = plan(setting)
    grid = (setting.batch, cdiv(setting.nodes, options["BLOCK_ROW"]))
    return Launch(exact_kernel, grid, setting.sizes(), FLAGGED=flagged, **options)
