"""An origin among the nodes of each graph, and |x_i|^2 from there.

It is the median, channel by channel, of three of the sources: products of features relative to it
do not cancel, even if the features are far from 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.channel_tiles import load_nodes
from aurel.kernels.triton.launch import cdiv, launch
from aurel.kernels.triton.sizes import power_of_two


@triton.jit
def finite_values(x_ptr, o_c, C):
    """Return the features [channels] of one node, 0 where not finite."""
    b_x = tl.load(x_ptr + o_c, mask=o_c < C, other=0.0).to(tl.float32)
    return tl.where(tl.abs(b_x) < float("inf"), b_x, 0.0)


@triton.jit
def origin(source_ptr, o_c, M, C):
    """Return the median [channels] of the first, the middle and the last source of one graph."""
    b_first = finite_values(source_ptr, o_c, C)
    b_middle = finite_values(source_ptr + M // 2 * C, o_c, C)
    b_last = finite_values(source_ptr + (M - 1) * C, o_c, C)
    b_low, b_high = tl.minimum(b_first, b_middle), tl.maximum(b_first, b_middle)
    return tl.maximum(b_low, tl.minimum(b_high, b_last))


@triton.jit
def square_kernel(
    x_ptr,
    source_ptr,
    square_ptr,
    origin_ptr,
    N,
    M,
    C,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write |x_i|^2 from the origin of the sources, and the origin."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_ptr += i_batch * N * C
    source_ptr += i_batch * M * C
    b_square = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        b_origin = origin(source_ptr, o_c, M, C)
        if tl.program_id(1) == 0:
            tl.store(origin_ptr + i_batch * C + o_c, b_origin, mask=o_c < C)
        b_x = load_nodes(x_ptr, o_n, o_c, N, C) - b_origin[None, :]
        b_square += b_x * b_x
    tl.store(square_ptr + i_batch * N + o_n, tl.sum(b_square, axis=1), mask=o_n < N)


def squares(x: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Return |x_i|^2 from the origin of the sources, (B, N), and the origin, (B, C)."""
    batch, nodes, channels = x.shape
    out = x.new_empty((batch, nodes), dtype=torch.float32)
    center = x.new_empty((batch, channels), dtype=torch.float32)
    block_c = min(64, power_of_two(channels))
    launch(
        square_kernel,
        (batch, cdiv(nodes, 16)),
        x,
        sources,
        out,
        center,
        nodes,
        sources.shape[1],
        channels,
        BLOCK_N=16,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return out, center
