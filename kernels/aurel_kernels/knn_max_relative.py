"""KNN graph and max-relative aggregation in one launch: max over the K nearest j of x_j - x_i.

x (B, N, C) -> out (B, N, C), neighbors (B, N, K), winner (B, N, C): the slot that won, one byte.
The graph never leaves the program that found it: neighbour rows are gathered from cache, strip by
strip of channels. max_j x_j - x_i equals max_j (x_j - x_i) exactly, since rounding is monotone.
Backward is `neighbor_aggregate.backward` with `relative`: deterministic, no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels import neighbor_aggregate
from aurel_kernels.knn import column_shift, nearest, plan
from aurel_kernels.launch import launch
from aurel_kernels.neighbor_aggregate import best_of_slot


@triton.jit
def max_relative_kernel(
    x_ptr,
    shift_ptr,
    mask_ptr,
    neighbor_ptr,
    out_ptr,
    winner_ptr,
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
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    m_row = o_row < N
    x_ptr += i_batch * N * C
    b_neighbor = nearest(
        x_ptr,
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
        mask=m_row[:, None] & (o_k < K)[None, :],
    )
    m_some = tl.max(b_neighbor, axis=1) >= 0
    for c0 in range(0, C, BLOCK_D):
        o_c = c0 + tl.arange(0, BLOCK_D)
        m_c = o_c < C
        m_x = m_row[:, None] & m_c[None, :]
        p_x = o_row[:, None] * C + o_c[None, :]
        b_best = tl.full((BLOCK_ROW, BLOCK_D), -float("inf"), tl.float32)
        b_winner = tl.zeros((BLOCK_ROW, BLOCK_D), tl.int32)
        for slot in range(K):
            b_j = tl.max(tl.where(o_k[None, :] == slot, b_neighbor, -1), axis=1)
            m_j = (b_j >= 0)[:, None]
            b_value = tl.load(
                x_ptr + b_j[:, None] * C + o_c[None, :], mask=m_j & m_c[None, :], other=0.0
            ).to(tl.float32)
            b_best, b_winner = best_of_slot(b_value, m_j, slot, b_best, b_winner)
        b_own = tl.load(x_ptr + p_x, mask=m_x, other=0.0).to(tl.float32)
        b_out = tl.where(m_some[:, None], b_best - b_own, 0.0)
        p_out = i_batch * N * C + p_x
        tl.store(out_ptr + p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_x)
        tl.store(winner_ptr + p_out, b_winner.to(tl.uint8), mask=m_x)


def forward(
    x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch `max_relative_kernel`; return out, neighbors and the winning slots."""
    x = x.contiguous()
    mask = None if mask is None else mask.contiguous()
    batch, nodes, channels = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    out = torch.empty_like(x)
    winner = torch.empty_like(x, dtype=torch.uint8)
    options = plan(nodes, k, metric)
    launch(
        max_relative_kernel,
        (batch, triton.cdiv(nodes, int(options["BLOCK_ROW"]))),
        x,
        column_shift(x, mask, metric),
        x if mask is None else mask,
        neighbors,
        out,
        winner,
        nodes,
        channels,
        LOOP=loop,
        HAS_MASK=mask is not None,
        BLOCK_D=64,
        **options,
    )
    return out, neighbors, winner


def backward(grad: Tensor, neighbors: Tensor, winner: Tensor) -> Tensor:
    """Return the gradient of x, (B, N, C): to the winning neighbour, less what went to x_i."""
    return neighbor_aggregate.backward(grad, neighbors, winner, "max", relative=True)
