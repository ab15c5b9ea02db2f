"""K-nearest-neighbour graphs of many dense graphs at once.

x (B, N, C) -> neighbors (B, N, K), nearest first, ties to the lowest index, -1 for an empty slot.
A program owns BLOCK_ROW nodes of one graph. Up to WHOLE_GRAPH nodes it sees all columns in one
tile and picks K times; beyond, it walks over column tiles and keeps a sorted list of the K best
packed keys. No (N, N) array reaches memory. Nothing is differentiated: selection has no gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import launch, power_of_two
from aurel_kernels.tiles import (
    channel_strip,
    pack_keys,
    score_tile,
    select_nearest,
    unpack_columns,
)

METRICS = ("l2", "l1", "cosine", "dot")
MAX_K = 64
MAX_NODES = 16_384
MAX_CHANNELS = 2_048
WHOLE_GRAPH = 64


def obstacle(nodes: int, channels: int, k: int) -> str | None:
    """Say which size the kernels do not serve; None if they serve it."""
    if k > MAX_K:
        return f"k up to {MAX_K}, got {k}"
    if nodes > MAX_NODES:
        return f"up to {MAX_NODES} nodes, got {nodes}"
    if channels > MAX_CHANNELS:
        return f"up to {MAX_CHANNELS} channels, got {channels}"
    return None


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
    """Write, for each channel of one graph, the node value nearest to the mean.

    Shifting by a value of the data keeps integer-valued features integer, so equal distances stay
    equal; being near the mean, it keeps the products from cancelling.
    """
    i_batch = tl.program_id(0).to(tl.int64)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    x_ptr += i_batch * N * C
    mask_ptr += i_batch * N
    b_sum = tl.zeros((BLOCK_C,), tl.float32)
    b_count = tl.zeros((BLOCK_C,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        b_x, m_x = channel_strip(x_ptr, mask_ptr, n0, o_c, N, C, HAS_MASK, BLOCK_N)
        b_sum += tl.sum(b_x, axis=1)
        b_count += tl.sum(m_x.to(tl.float32), axis=1)
    b_mean = b_sum / tl.maximum(b_count, 1.0)
    b_gap = tl.full((BLOCK_C,), float("inf"), tl.float32)
    b_shift = tl.zeros((BLOCK_C,), tl.float32)
    for n0 in range(0, N, BLOCK_N):
        b_x, m_x = channel_strip(x_ptr, mask_ptr, n0, o_c, N, C, HAS_MASK, BLOCK_N)
        b_gaps = tl.where(m_x, tl.abs(b_x - b_mean[:, None]), float("inf"))
        b_least = tl.min(b_gaps, axis=1)
        # of several values as near, the largest: any will do, so long as it is one of them
        b_nearest = tl.max(tl.where(b_gaps == b_least[:, None], b_x, -float("inf")), axis=1)
        b_shift = tl.where(b_least < b_gap, b_nearest, b_shift)
        b_gap = tl.minimum(b_least, b_gap)
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
    PRECISION: tl.constexpr,
):
    """Return the neighbours [BLOCK_ROW, BLOCK_K] of the rows of one graph (pointers at its start)."""
    m_row = o_row < N
    if HAS_MASK:
        m_row = tl.load(mask_ptr + o_row, mask=m_row, other=0) != 0
    if WHOLE:
        o_col = tl.arange(0, BLOCK_COL)
        m_col = o_col < N
        if HAS_MASK:
            m_col = tl.load(mask_ptr + o_col, mask=m_col, other=0) != 0
        m_free = m_row[:, None] & m_col[None, :]
        if not LOOP:
            m_free = m_free & (o_row[:, None] != o_col[None, :])
        b_score = score_tile(
            x_ptr, shift_ptr, o_row, o_col, N, C, METRIC, BLOCK_ROW, BLOCK_COL, BLOCK_C, PRECISION
        )
        b_neighbor = select_nearest(b_score, m_free, o_col, K, BLOCK_K, BLOCK_ROW, BLOCK_COL)
    else:
        o_k = tl.arange(0, BLOCK_K)
        # complemented keys, ascending: the nearest stands last
        b_best = tl.full((BLOCK_ROW, BLOCK_K), -0x8000000000000000, tl.int64)
        for n0 in range(0, N, BLOCK_COL):
            o_col = n0 + tl.arange(0, BLOCK_COL)
            m_col = o_col < N
            if HAS_MASK:
                m_col = tl.load(mask_ptr + o_col, mask=m_col, other=0) != 0
            m_free = m_row[:, None] & m_col[None, :]
            if not LOOP:
                m_free = m_free & (o_row[:, None] != o_col[None, :])
            b_score = score_tile(
                x_ptr, shift_ptr, o_row, o_col, N, C, METRIC, BLOCK_ROW, BLOCK_COL, BLOCK_C, PRECISION
            )
            b_key = ~pack_keys(b_score, m_free, o_col, BLOCK_ROW, BLOCK_COL)
            # the larger of an ascending and a descending list, slot by slot, are the K best of both
            b_best = tl.bitonic_merge(tl.maximum(b_best, tl.topk(b_key, BLOCK_K)))
        b_reversed = tl.broadcast_to((BLOCK_K - 1 - o_k)[None, :], (BLOCK_ROW, BLOCK_K))
        b_neighbor = tl.gather(unpack_columns(~b_best), b_reversed, axis=1)
    return b_neighbor


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
    PRECISION: tl.constexpr,
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
        PRECISION,
    )
    o_k = tl.arange(0, BLOCK_K)
    tl.store(
        neighbor_ptr + (i_batch * N + o_row[:, None]) * K + o_k[None, :],
        b_neighbor.to(tl.int64),
        mask=(o_row < N)[:, None] & (o_k < K)[None, :],
    )


def plan(nodes: int, k: int, metric: str) -> dict[str, int | bool | str]:
    """Return the launch options for graphs of `nodes` nodes: no search, the same everywhere."""
    whole = nodes <= WHOLE_GRAPH
    strip = 4 if metric == "l1" else 32  # l1 holds a [row, column, channel] block of differences
    return {
        "K": k,
        "BLOCK_K": power_of_two(k, 2),
        "WHOLE": whole,
        "METRIC": metric,
        "BLOCK_ROW": 16,
        "BLOCK_COL": power_of_two(nodes) if whole else 64,
        "BLOCK_C": strip,
        "PRECISION": "ieee",  # tf32 would choose other neighbours
        "num_warps": 4,
        "num_stages": 2,
    }


def column_shift(x: Tensor, mask: Tensor | None, metric: str) -> Tensor:
    """Return the (B, C) shift that keeps l2 from cancelling; an unread stand-in for the others."""
    batch, nodes, channels = x.shape
    if metric != "l2":
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
        BLOCK_N=min(64, power_of_two(nodes)),
        BLOCK_C=block,
    )
    return shift


def forward(x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None) -> Tensor:
    """Launch `knn_kernel`: x (B, N, C) -> neighbors (B, N, K) int64."""
    x = x.contiguous()
    mask = None if mask is None else mask.contiguous()
    batch, nodes, channels = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    options = plan(nodes, k, metric)
    launch(
        knn_kernel,
        (batch, triton.cdiv(nodes, int(options["BLOCK_ROW"]))),
        x,
        column_shift(x, mask, metric),
        x if mask is None else mask,
        neighbors,
        nodes,
        channels,
        LOOP=loop,
        HAS_MASK=mask is not None,
        **options,
    )
    return neighbors
