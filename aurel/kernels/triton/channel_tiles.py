"""Nodes in tiles of WIDTH, channel by channel, in float32: the layout that `scores` reads.

x (B, N, C) -> tiles (B, ceil(N / WIDTH), C, WIDTH), zero behind the last node. A score tile loads
one channel of all its nodes at once, in one transaction, and without masks.

For the cosine, each node is scaled by the power of two that brings its largest channel into
[1, 2), which is exact, and the sums of squares of the scaled nodes are returned beside the tiles.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.sizes import WHOLE_GRAPH, power_of_two


@triton.jit
def any_flag(flag_ptr, N, BLOCK_N: tl.constexpr):
    """Return whether one of N bytes is not 0, as 1 or 0."""
    found = 0
    for n0 in range(0, N, BLOCK_N):
        o_n = n0 + tl.arange(0, BLOCK_N)
        b_flag = tl.load(flag_ptr + o_n, mask=o_n < N, other=0).to(tl.int32)
        found = tl.maximum(found, tl.max(b_flag, axis=0))
    return found


@triton.jit
def load_nodes(x_ptr, o_n, o_c, N, C):
    """Return features [nodes, channels] of one graph in float32, 0 beyond it."""
    return tl.load(
        x_ptr + o_n[:, None] * C + o_c[None, :],
        mask=(o_n < N)[:, None] & (o_c < C)[None, :],
        other=0.0,
    ).to(tl.float32)


@triton.jit
def scale_factors(b_largest):
    """Return two powers of two whose product times b_largest > 0 lies in [1, 2).

    A single one may be too large for a float, or too small.
    """
    b_first = tl.where(b_largest < 2.0**-60, 2.0**64, 1.0)
    b_first = tl.where(b_largest > 2.0**60, 2.0**-64, b_first)
    b_exponent = (b_largest * b_first).to(tl.int32, bitcast=True) >> 23
    return b_first, ((254 - b_exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def tile_kernel(
    x_ptr,
    flag_ptr,
    tile_ptr,
    square_ptr,
    N,
    C,
    P,
    SCALED: tl.constexpr,
    FLAGGED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    i_tile = i_batch * tl.num_programs(1) + tl.program_id(1)
    o_lane = tl.arange(0, WIDTH)
    o_n = tl.program_id(1) * WIDTH + o_lane
    x_ptr += i_batch * N * C
    tile_ptr += i_tile * C * WIDTH
    stop = C
    if FLAGGED:
        stop = C * any_flag(flag_ptr + i_batch * P, P, 1024)
    if SCALED:
        b_largest = tl.zeros((WIDTH,), tl.float32)
        for c0 in range(0, C, BLOCK_C):
            b_x = load_nodes(x_ptr, o_n, c0 + tl.arange(0, BLOCK_C), N, C)
            b_largest = tl.maximum(b_largest, tl.max(tl.abs(b_x), axis=1))
        b_first, b_second = scale_factors(b_largest)
        b_square = tl.zeros((WIDTH,), tl.float32)
    for c0 in range(tl.program_id(2) * BLOCK_C, stop, tl.num_programs(2) * BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        b_x = load_nodes(x_ptr, o_n, o_c, N, C)
        if SCALED:
            b_x = b_x * b_first[:, None] * b_second[:, None]
            b_square += tl.sum(b_x * b_x, axis=1)
        p_tile = tile_ptr + o_c[None, :] * WIDTH + o_lane[:, None]
        tl.store(p_tile, b_x, mask=(o_c < C)[None, :])
    if SCALED:
        tl.store(square_ptr + i_tile * WIDTH + o_lane, b_square)


def tile_width(nodes: int) -> int:
    """Return the number of nodes in a tile of graphs of `nodes` nodes."""
    return min(WHOLE_GRAPH, power_of_two(nodes))


def channel_tiles(x: Tensor, metric: str, flags: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the tiles of x and, for the cosine, the sums of squares (else any tensor).

    Args:
        x: (B, N, C), contiguous.
        metric: "cosine" scales the nodes.
        flags: (B, P) int8; graphs without a flag are not written. None: all are.
    """
    scaled = metric == "cosine"
    launch, shape = plan(*x.shape, None if flags is None else flags.shape[1], scaled)
    out = x.new_empty(shape, dtype=torch.float32)
    squares = x.new_empty((*shape[:2], shape[3]), dtype=torch.float32) if scaled else out
    launch(x, x if flags is None else flags, out, squares)
    return out, squares


@lru_cache(PLANS)
def plan(
    batch: int, nodes: int, channels: int, flags: int | None, scaled: bool
) -> tuple[Launch, tuple[int, int, int, int]]:
    """Return the launch, and the shape of the tiles; `flags` is P, or None."""
    width = tile_width(nodes)
    tiles = cdiv(nodes, width)
    block_c = min(32 if scaled else 64, power_of_two(channels))
    launch = Launch(
        tile_kernel,
        (batch, tiles, 1 if scaled else cdiv(channels, block_c)),
        (nodes, channels, flags or 0),
        SCALED=scaled,
        FLAGGED=flags is not None,
        WIDTH=width,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return launch, (batch, tiles, channels, width)
