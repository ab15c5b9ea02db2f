"""Gather and reduce over given neighbor lists: max, mean or sum of the listed rows.

For max, the winning node is kept: the first of equal values wins, and NaN wins over everything, as
in torch. A row without neighbors gets 0, and winner 0.
"""

from __future__ import annotations

from functools import lru_cache

import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.sizes import power_of_two
from aurel.kernels.winners import new_winner


@triton.jit
def start_fold(REDUCE: tl.constexpr, BLOCK_ROW: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return what `fold_node` starts from: an empty reduction, and no winner."""
    START: tl.constexpr = -float("inf") if REDUCE == "max" else 0.0
    b_acc = tl.full((BLOCK_ROW, BLOCK_C), START, tl.float32)
    return b_acc, tl.full((BLOCK_ROW, BLOCK_C), -1, tl.int32)


@triton.jit
def fold_node(values_ptr, b_j, o_c, C, b_acc, b_winner, REDUCE: tl.constexpr):
    """Fold the features of nodes b_j [BLOCK_ROW] (-1: none) into the running reduction."""
    m_j = (b_j >= 0)[:, None]
    b_x = tl.load(
        values_ptr + b_j[:, None] * C + o_c[None, :], mask=m_j & (o_c < C)[None, :], other=0.0
    ).to(tl.float32)
    if REDUCE == "max":
        m_better = m_j & ~(b_x <= b_acc) & (b_acc == b_acc)
        b_acc = tl.where(m_better, b_x, b_acc)
        b_winner = tl.where(m_better, b_j[:, None], b_winner)
    else:
        b_acc += b_x
    return b_acc, b_winner


@triton.jit
def finish_fold(b_acc, b_winner, b_degree, b_first, REDUCE: tl.constexpr):
    """Return the reduction and the winners, over b_degree neighbors, of which b_first is the first.

    Where all values are -inf, none is larger than the start: the first wins.
    """
    if REDUCE == "mean":
        b_acc = b_acc / tl.maximum(b_degree, 1.0)[:, None]
    b_acc = tl.where((b_degree > 0)[:, None], b_acc, 0.0)
    return b_acc, tl.where(b_winner < 0, tl.maximum(b_first, 0)[:, None], b_winner)


@triton.jit
def store_fold(
    x_ptr,
    out_ptr,
    winner_ptr,
    b_acc,
    b_winner,
    b_degree,
    b_first,
    i_batch,
    o_row,
    o_c,
    N,
    C,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    KEEP_WINNER: tl.constexpr,
):
    """Finish and store rows `o_row` of one graph, less their own features if RELATIVE."""
    p_out = i_batch * N * C + o_row[:, None] * C + o_c[None, :]
    m_out = (o_row < N)[:, None] & (o_c < C)[None, :]
    if RELATIVE:
        b_acc -= tl.load(x_ptr + p_out, mask=m_out, other=0.0).to(tl.float32)
    b_acc, b_winner = finish_fold(b_acc, b_winner, b_degree, b_first, REDUCE)
    tl.store(out_ptr + p_out, b_acc.to(out_ptr.dtype.element_ty), mask=m_out)
    if KEEP_WINNER:
        tl.store(winner_ptr + p_out, b_winner.to(winner_ptr.dtype.element_ty), mask=m_out)


@triton.jit
def gather_kernel(
    values_ptr,
    x_ptr,
    neighbor_ptr,
    out_ptr,
    winner_ptr,
    N,
    M,
    C,
    K,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    KEEP_WINNER: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    values_ptr += i_batch * M * C
    neighbor_ptr += i_batch * N * K
    b_acc, b_winner = start_fold(REDUCE, BLOCK_ROW, BLOCK_C)
    b_degree = tl.zeros((BLOCK_ROW,), tl.float32)
    b_first = tl.full((BLOCK_ROW,), -1, tl.int32)
    for slot in range(K):
        b_j = tl.load(neighbor_ptr + o_row * K + slot, mask=o_row < N, other=-1)
        # an index out of range is an empty slot
        b_j = tl.where((b_j >= 0) & (b_j < M), b_j, -1).to(tl.int32)
        b_acc, b_winner = fold_node(values_ptr, b_j, o_c, C, b_acc, b_winner, REDUCE)
        b_degree += (b_j >= 0).to(tl.float32)
        b_first = tl.where(b_first < 0, b_j, b_first)
    store_fold(
        x_ptr,
        out_ptr,
        winner_ptr,
        b_acc,
        b_winner,
        b_degree,
        b_first,
        i_batch,
        o_row,
        o_c,
        N,
        C,
        REDUCE,
        RELATIVE,
        KEEP_WINNER,
    )


def gather(
    values: Tensor,
    neighbors: Tensor,
    reduce: str,
    keep_winner: bool,
    relative_to: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the reduction, (B, N, C), and the winning nodes.

    Args:
        values: (B, M, C), contiguous.
        neighbors: (B, N, K) int64, contiguous; indices outside 0..M-1 are empty slots.
        reduce: "max", "mean" or "sum".
        keep_winner: return the winners, (B, N, C); they are empty otherwise.
        relative_to: (B, N, C), contiguous, subtracted from the reduction; or None.
    """
    batch, nodes, k = neighbors.shape
    _, sources, channels = values.shape
    out = values.new_empty((batch, nodes, channels))
    winner = new_winner(out, sources, keep_winner)
    relative = relative_to is not None
    launch = plan(batch, nodes, sources, channels, k, reduce, relative, keep_winner)
    launch(values, values if relative_to is None else relative_to, neighbors, out, winner)
    return out, winner


@lru_cache(PLANS)
def plan(
    batch: int,
    nodes: int,
    sources: int,
    channels: int,
    k: int,
    reduce: str,
    relative: bool,
    keep_winner: bool,
) -> Launch:
    """Return the launch for these sizes and options."""
    block_c = min(256, power_of_two(channels))
    block_row = 16 if block_c <= 128 else 8
    return Launch(
        gather_kernel,
        (batch, cdiv(nodes, block_row), cdiv(channels, block_c)),
        (nodes, sources, channels, k),
        REDUCE=reduce,
        RELATIVE=relative,
        KEEP_WINNER=keep_winner,
        BLOCK_ROW=block_row,
        BLOCK_C=block_c,
        num_warps=4,
    )
