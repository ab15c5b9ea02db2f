"""K-nearest-neighbour graphs of many dense graphs at once.

x (B, N, C) -> neighbors (B, N, K) int64, nearest first, ties to the lowest index, -1 for an empty
slot. A program owns BLOCK_ROW nodes of one graph. Up to WHOLE_GRAPH nodes it sees all of the graph
in one tile and picks K times; beyond, it walks over column tiles and keeps a sorted list of the K
best packed keys. No (N, N) array reaches memory, and float32 products are never rounded to tf32.

Nothing is differentiated, so nothing is saved: a choice has no gradient. Sizes: see `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import INTERPRETED, launch
from aurel_kernels.sizes import WHOLE_GRAPH, power_of_two
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

METRICS = ("l2", "l1", "cosine", "dot")


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
def candidates(
    x_ptr,
    shift_ptr,
    mask_ptr,
    o_row,
    o_col,
    N,
    C,
    LOOP: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WHOLE: tl.constexpr,
    METRIC: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Return scores [BLOCK_ROW, BLOCK_COL] and which of them a row may choose."""
    m_row = present(mask_ptr, o_row, N, HAS_MASK)
    m_col = present(mask_ptr, o_col, N, HAS_MASK)
    m_free = m_row[:, None] & m_col[None, :]
    if not LOOP:
        m_free = m_free & (o_row[:, None] != o_col[None, :])
    b_score = score_tile(
        x_ptr,
        shift_ptr,
        o_row,
        o_col,
        m_col,
        N,
        C,
        METRIC,
        WHOLE,
        BLOCK_ROW,
        BLOCK_COL,
        BLOCK_C,
        UPCAST,
    )
    return b_score, m_free


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
    """Return the neighbours [BLOCK_ROW, BLOCK_K] of nodes `o_row` of the graph pointed at."""
    if WHOLE:
        o_col = tl.arange(0, BLOCK_COL)
        b_score, m_free = candidates(
            x_ptr,
            shift_ptr,
            mask_ptr,
            o_row,
            o_col,
            N,
            C,
            LOOP,
            HAS_MASK,
            WHOLE,
            METRIC,
            BLOCK_ROW,
            BLOCK_COL,
            BLOCK_C,
            UPCAST,
        )
        b_neighbor = select_nearest(b_score, m_free, o_col, K, BLOCK_K, BLOCK_ROW, BLOCK_COL)
    else:
        # complemented keys, ascending: the nearest stands last
        b_best = tl.full((BLOCK_ROW, BLOCK_K), -0x8000000000000000, tl.int64)
        for n0 in range(0, N, BLOCK_COL):
            o_col = n0 + tl.arange(0, BLOCK_COL)
            b_score, m_free = candidates(
                x_ptr,
                shift_ptr,
                mask_ptr,
                o_row,
                o_col,
                N,
                C,
                LOOP,
                HAS_MASK,
                WHOLE,
                METRIC,
                BLOCK_ROW,
                BLOCK_COL,
                BLOCK_C,
                UPCAST,
            )
            b_key = ~pack_keys(b_score, m_free, o_col, BLOCK_ROW, BLOCK_COL)
            # the larger of an ascending and a descending list, slot by slot, are the K best of both
            b_best = tl.bitonic_merge(tl.maximum(b_best, tl.topk(b_key, BLOCK_K)))
        o_k = tl.arange(0, BLOCK_K)
        o_last = tl.broadcast_to((BLOCK_K - 1 - o_k)[None, :], (BLOCK_ROW, BLOCK_K))
        b_neighbor = tl.gather(unpack_columns(~b_best), o_last, axis=1)
        b_neighbor = tl.where((o_k < K)[None, :], b_neighbor, -1)
    return b_neighbor


@triton.jit
def store_neighbors(neighbor_ptr, b_neighbor, o_row, N, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Store the neighbours [BLOCK_ROW, BLOCK_K] of nodes `o_row`; the pointer is at one graph."""
    o_k = tl.arange(0, BLOCK_K)
    tl.store(
        neighbor_ptr + o_row[:, None] * K + o_k[None, :],
        b_neighbor.to(tl.int64),
        mask=(o_row < N)[:, None] & (o_k < K)[None, :],
    )


@triton.jit
def knn_kernel(
    x_ptr,
    shift_ptr,
    mask_ptr,
    neighbor_ptr,
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
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    b_neighbor = nearest(
        x_ptr + i_batch * N * C,
        shift_ptr + i_batch * C,
        mask_ptr + i_batch * N,
        o_row,
        N,
        C,
        K,
        BLOCK_K,
        LOOP,
        HAS_MASK,
        WHOLE,
        METRIC,
        BLOCK_ROW,
        BLOCK_COL,
        BLOCK_C,
        UPCAST,
    )
    store_neighbors(neighbor_ptr + i_batch * N * K, b_neighbor, o_row, N, K, BLOCK_K)


def plan(x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None) -> dict[str, Any]:
    """Return the options of a kernel that calls `nearest`: a table, no search, no warm-up."""
    nodes = x.shape[1]
    whole = nodes <= WHOLE_GRAPH
    columns = power_of_two(nodes) if whole else 64
    # Halves go to the tensor cores as they are, unless a shift would round them. The interpreter
    # multiplies bfloat16 wrongly.
    upcast = metric == "l2" or x.dtype == torch.float32 or INTERPRETED
    strip = 16 if upcast and columns > 16 else 32  # float32 products hold it in registers
    return {
        "K": k,
        "BLOCK_K": power_of_two(k, 2),
        "LOOP": loop,
        "HAS_MASK": mask is not None,
        "WHOLE": whole,
        "METRIC": metric,
        "BLOCK_ROW": 16,  # a graph of 41 nodes spreads over three multiprocessors
        "BLOCK_COL": columns,
        # l1 holds a [row, column, channel] block of differences.
        "BLOCK_C": 4 if metric == "l1" else strip,
        "UPCAST": upcast,
        "num_warps": 8 if columns == 64 else 4,
        # Loads ahead of float32 products and of the list of the best would spill.
        "num_stages": 2 if whole or not upcast else 1,
        # Left to itself, ptxas spills a few bytes for the sake of one more block.
        "maxnreg": 128,
    }


def column_shift(x: Tensor, mask: Tensor | None, metric: str) -> Tensor:
    """Return the (B, C) shift that `score_tile` reads, or a stand-in where it reads none."""
    batch, nodes, channels = x.shape
    if metric != "l2" or nodes <= WHOLE_GRAPH:
        return x.new_empty(1, dtype=torch.float32)
    shift = x.new_empty((batch, channels), dtype=torch.float32)
    block = 64
    launch(
        shift_kernel,
        (batch, triton.cdiv(channels, block)),
        x,
        x if mask is None else mask,
        shift,
        nodes,
        channels,
        HAS_MASK=mask is not None,
        BLOCK_N=64,
        BLOCK_C=block,
        num_warps=4,
    )
    return shift


def forward(x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None) -> Tensor:
    """Return the neighbours, (B, N, K) int64.

    Args:
        x: node features, (B, N, C), float32, float16 or bfloat16.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot".
        loop: a node may choose itself.
        mask: (B, N) bool, True where the node exists, or None.
    """
    x = x.contiguous()
    mask = None if mask is None else mask.contiguous()
    batch, nodes, channels = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    options = plan(x, k, metric, loop, mask)
    launch(
        knn_kernel,
        (batch, triton.cdiv(nodes, options["BLOCK_ROW"])),
        x,
        column_shift(x, mask, metric),
        x if mask is None else mask,
        neighbors,
        nodes,
        channels,
        **options,
    )
    return neighbors


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the table of `plan`, on CPU tensors, to be compiled."""
    cases = [(n, c, 9, metric, "float32") for n, c in ((41, 40), (196, 192)) for metric in METRICS]
    cases += [(12, 512, 4, "l2", "float32"), (27, 192, 4, "cosine", "float32")]
    cases += [(64, 512, 64, "l2", "float32")]
    cases += [(196, 512, 16, "l2", "float16"), (196, 40, 64, "cosine", "bfloat16")]
    cases += [(196, 512, 9, "dot", "bfloat16")]
    for nodes, channels, k, metric, dtype in cases:
        x = torch.empty(2, nodes, channels, dtype=getattr(torch, dtype))
        mask = torch.ones(2, nodes, dtype=torch.bool) if k > 9 else None
        yield partial(forward, x, k, metric, k <= 9, mask)
