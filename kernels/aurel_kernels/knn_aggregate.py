"""A graph of nearest neighbours, and a reduction over it, in one launch.

x (B, N, C), values (B, N, C') -> neighbors (B, N, K), and either

    max   out_i = max_s values[neighbors[i, s]] - values_i, with the winning slots (one byte each)
    mean  out_i = mean_s values[neighbors[i, s]]

The choice is that of `knn`; it never leaves the registers of the program that made it, which then
gathers rows of `values` from cache, one strip of channels after the other. Backward is that of
`neighbor_aggregate`. The operators built on this are `knn_max_relative` and `topk_aggregate`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.knn import column_shift, nearest, plan, store_neighbors
from aurel_kernels.launch import launch
from aurel_kernels.neighbor_aggregate import finish_fold, fold_slot, start_fold


@triton.jit
def knn_aggregate_kernel(
    x_ptr,
    shift_ptr,
    mask_ptr,
    values_ptr,
    neighbor_ptr,
    out_ptr,
    winner_ptr,
    N,
    C,
    CV,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WHOLE: tl.constexpr,
    METRIC: tl.constexpr,
    REDUCE: tl.constexpr,
    KEEP_WINNER: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
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
    o_k = tl.arange(0, BLOCK_K)
    b_degree = tl.sum((b_neighbor >= 0).to(tl.float32), axis=1)
    values_ptr += i_batch * N * CV
    for c0 in range(0, CV, BLOCK_D):
        o_c = c0 + tl.arange(0, BLOCK_D)
        b_acc, b_winner = start_fold(REDUCE, BLOCK_ROW, BLOCK_D)
        for slot in range(K):
            b_j = tl.max(tl.where(o_k[None, :] == slot, b_neighbor, -1), axis=1)
            b_acc, b_winner = fold_slot(values_ptr, b_j, o_c, CV, slot, b_acc, b_winner, REDUCE)
        p_out = o_row[:, None] * CV + o_c[None, :]
        m_out = (o_row < N)[:, None] & (o_c < CV)[None, :]
        if REDUCE == "max":
            b_acc -= tl.load(values_ptr + p_out, mask=m_out, other=0.0).to(tl.float32)
        b_out = finish_fold(b_acc, b_degree, REDUCE)
        p_out += i_batch * N * CV
        tl.store(out_ptr + p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_out)
        if KEEP_WINNER:
            tl.store(winner_ptr + p_out, b_winner.to(tl.uint8), mask=m_out)


def knn_aggregate(
    x: Tensor,
    values: Tensor,
    k: int,
    metric: str,
    loop: bool,
    mask: Tensor | None,
    reduce: str,
    keep_winner: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the reduction (B, N, C'), the neighbours (B, N, K), and the winning slots.

    The slots, (B, N, C') uint8, are empty unless `keep_winner`.
    """
    x, values = x.contiguous(), values.contiguous()
    mask = None if mask is None else mask.contiguous()
    batch, nodes, channels = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    out = torch.empty_like(values)
    winner = values.new_empty(values.shape if keep_winner else (0,), dtype=torch.uint8)
    options = plan(x, k, metric, loop, mask)
    launch(
        knn_aggregate_kernel,
        (batch, triton.cdiv(nodes, options["BLOCK_ROW"])),
        x,
        column_shift(x, mask, metric),
        x if mask is None else mask,
        values,
        neighbors,
        out,
        winner,
        nodes,
        channels,
        values.shape[2],
        REDUCE=reduce,
        KEEP_WINNER=keep_winner,
        BLOCK_D=64,
        **options,
    )
    return out, neighbors, winner
