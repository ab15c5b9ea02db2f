"""The nearest of a few candidates by exact l2 distances, one program a row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.knn_problem import Problem
from aurel.kernels.triton.launch import launch
from aurel.kernels.triton.scores import add_bias
from aurel.kernels.triton.selection import NO_COLUMN


@triton.jit
def ranks_of(b_score, b_column):
    """Return the rank of each candidate in the order of (score, column)."""
    m_tie = (b_score[None, :] == b_score[:, None]) & (b_column[None, :] < b_column[:, None])
    return tl.sum(((b_score[None, :] < b_score[:, None]) | m_tie).to(tl.int32), axis=1)


@triton.jit
def exact_scores(x_ptr, source_ptr, b_column, m_free, C, BLOCK_C: tl.constexpr):
    """Return the squared distances of one node to candidates, +inf where they are not finite."""
    b_score = tl.zeros((b_column.shape[0], BLOCK_C), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        b_row = tl.load(x_ptr + o_c, mask=o_c < C, other=0.0).to(tl.float32)
        b_gap = (
            tl.load(
                source_ptr + b_column[:, None] * C + o_c[None, :],
                mask=m_free[:, None] & (o_c < C)[None, :],
                other=0.0,
            ).to(tl.float32)
            - b_row[None, :]
        )
        b_score += b_gap * b_gap
    b_score = tl.sum(b_score, axis=1)
    return tl.where(b_score < float("inf"), b_score, float("inf"))


@triton.jit
def rerank_kernel(
    x_ptr,
    source_ptr,
    bias_ptr,
    mask_ptr,
    source_mask_ptr,
    group_ptr,
    bound_ptr,
    neighbor_ptr,
    flag_ptr,
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
    KEPT: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    i_row = i_batch * N + row
    source_ptr += i_batch * M * C
    source_mask_ptr += i_batch * M
    bias_ptr += i_batch * bias_step
    o_p = tl.arange(0, KEPT * GROUP)
    b_group = tl.load(group_ptr + i_row * KEPT + o_p // GROUP)
    b_column = b_group * GROUP + o_p % GROUP
    m_free = (b_group >= 0) & (b_column < M)
    if HAS_SOURCE_MASK:
        m_free = m_free & (tl.load(source_mask_ptr + b_column, mask=m_free, other=0) != 0)
    if not LOOP:
        m_free = m_free & (b_column != row)
    exists = 1
    if HAS_MASK:
        exists = tl.load(mask_ptr + i_row).to(tl.int32)
    b_score = exact_scores(x_ptr + i_row * C, source_ptr, b_column, m_free, C, BLOCK_C)
    if HAS_BIAS:
        b_score = add_bias(b_score, bias_ptr + row * M + b_column, m_free)
    b_rank = ranks_of(
        tl.where(m_free, b_score, float("inf")), tl.where(m_free, b_column, NO_COLUMN)
    )
    filled = tl.sum(m_free.to(tl.int32), axis=0)
    m_slot = m_free & (b_rank < K * DILATION) & (b_rank % DILATION == 0)
    p_neighbor = neighbor_ptr + i_row * K
    tl.store(p_neighbor + b_rank // DILATION, b_column.to(tl.int64), mask=m_slot)
    o_k = tl.arange(0, BLOCK_K)
    tl.store(p_neighbor + o_k, -1, mask=(o_k < K) & (o_k * DILATION >= filled))
    last = tl.min(tl.where(m_free & (b_rank == K * DILATION - 1), b_score, float("inf")), axis=0)
    certain = (last < tl.load(bound_ptr + i_row)) | (exists == 0)
    tl.store(flag_ptr + i_row, tl.where(certain, 0, 1).to(tl.int8))


def rerank(
    problem: Problem, groups: Tensor, bounds: Tensor, size: int, neighbors: Tensor, flags: Tensor
) -> None:
    """Write the neighbors, and which rows are not certain.

    Args:
        problem: nodes, sources and options.
        groups: (B, N, groups) int32, the candidates: column // size, or -1.
        bounds: (B, N) float32; no other column is nearer.
        size: columns of a group.
        neighbors: (B, N, K) int64, written.
        flags: (B, N) int8, written: 1 where the last neighbor is not nearer than the bound.
    """
    kept = groups.shape[2]
    launch(
        rerank_kernel,
        problem.x.shape[:2],
        problem.x,
        problem.sources,
        *problem.tensors(),
        groups,
        bounds,
        neighbors,
        flags,
        *problem.setting.sizes(),
        KEPT=kept,
        GROUP=size,
        BLOCK_C=16,
        **problem.setting.list_options(),
        **problem.setting.options(),
        num_warps=1 if kept * size == 64 else 2,
    )
