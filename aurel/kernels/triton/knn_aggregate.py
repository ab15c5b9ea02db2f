"""A graph of nearest neighbors, and a reduction over it.

x (B, N, C), values (B, M, C') -> neighbors (B, N, K), and either

    max   out_i = max_s values[neighbors[i, s]] - x_i, with the winning nodes
    mean  out_i = mean_s values[neighbors[i, s]]

Up to WHOLE_GRAPH sources, one program does both: the neighbors stay in its registers. Beyond,
`knn_graph` and `gather` run one after the other. Backward is that of `neighbor_aggregate`. The
operators built on this are `knn_max_relative` and `topk_aggregate`.
"""

from __future__ import annotations

from functools import lru_cache

import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.gather import fold_node, gather, start_fold, store_fold
from aurel.kernels.triton.knn_exact import nearest, plan, store_neighbors, tiles_of
from aurel.kernels.triton.knn_graph import neighbors_of
from aurel.kernels.triton.knn_problem import Problem, Setting
from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.sizes import WHOLE_GRAPH, power_of_two
from aurel.kernels.winners import new_winner


@triton.jit
def reduce_neighbors(
    pointers,
    b_neighbor,
    i_batch,
    o_row,
    N,
    CV,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    REDUCE: tl.constexpr,
    KEEP_WINNER: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Store every DILATION-th of the lists [rows, BLOCK_K], and the reductions over these.

    `pointers` are those to x, to the values of graph i_batch, to neighbors, results and winners.
    """
    x_ptr, values_ptr, neighbor_ptr, out_ptr, winner_ptr = pointers
    neighbor_ptr += i_batch * N * K
    store_neighbors(neighbor_ptr, b_neighbor, o_row, o_row < N, K, DILATION, b_neighbor.shape[1])
    o_k = tl.arange(0, b_neighbor.shape[1])[None, :]
    m_kept = (b_neighbor >= 0) & (o_k % DILATION == 0)
    b_degree = tl.sum(m_kept.to(tl.float32), axis=1)
    b_first = tl.max(tl.where(o_k == 0, b_neighbor, -1), axis=1)
    for c0 in range(0, CV, BLOCK_D):
        o_c = c0 + tl.arange(0, BLOCK_D)
        b_acc, b_winner = start_fold(REDUCE, o_row.shape[0], BLOCK_D)
        for slot in range(K):
            o_slot = tl.full((o_row.shape[0], 1), 0, tl.int32) + slot * DILATION
            b_j = tl.reshape(tl.gather(b_neighbor, o_slot, axis=1), (o_row.shape[0],))
            b_acc, b_winner = fold_node(values_ptr, b_j, o_c, CV, b_acc, b_winner, REDUCE)
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
            CV,
            REDUCE,
            REDUCE == "max",
            KEEP_WINNER,
        )


@triton.jit
def knn_aggregate_kernel(
    row_tile_ptr,
    row_square_ptr,
    tile_ptr,
    square_ptr,
    bias_ptr,
    mask_ptr,
    source_mask_ptr,
    x_ptr,
    values_ptr,
    neighbor_ptr,
    out_ptr,
    winner_ptr,
    N,
    M,
    C,
    bias_step,
    CV,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    METRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    REDUCE: tl.constexpr,
    KEEP_WINNER: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    row0 = tl.program_id(1) * BLOCK_ROW
    o_row = row0 + tl.arange(0, BLOCK_ROW)
    b_neighbor = nearest(
        (row_tile_ptr, row_square_ptr, tile_ptr, square_ptr),
        (bias_ptr, mask_ptr, source_mask_ptr),
        (N, M, C, bias_step),
        i_batch,
        row0,
        1,
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
    pointers = (x_ptr, values_ptr + i_batch * M * CV, neighbor_ptr, out_ptr, winner_ptr)
    reduce_neighbors(
        pointers, b_neighbor, i_batch, o_row, N, CV, K, DILATION, REDUCE, KEEP_WINNER, BLOCK_D
    )


def knn_aggregate(
    problem: Problem, values: Tensor, reduce: str, keep_winner: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the reduction (B, N, C'), the neighbors (B, N, K), and the winning nodes.

    The winners, (B, N, C'), are empty unless `keep_winner`, and any tensor if `reduce` is "mean".
    "max" is relative to x.
    """
    x, setting = problem.x, problem.setting
    if setting.sources > WHOLE_GRAPH:
        neighbors = neighbors_of(problem)
        own = x if reduce == "max" else None
        out, winner = gather(values, neighbors, reduce, keep_winner, own)
        return out, neighbors, winner
    channels = values.shape[2]
    neighbors = problem.empty_neighbors()
    out = values.new_empty((setting.batch, setting.nodes, channels))
    winner = new_winner(out, setting.sources, keep_winner) if reduce == "max" else out
    launch = aggregate_plan(setting, channels, reduce, keep_winner)
    launch(*tiles_of(problem), *problem.tensors(), x, values, neighbors, out, winner)
    return out, neighbors, winner


@lru_cache(PLANS)
def aggregate_plan(setting: Setting, channels: int, reduce: str, keep_winner: bool) -> Launch:
    """Return the launch for values of `channels` channels."""
    options = plan(setting)
    return Launch(
        knn_aggregate_kernel,
        (setting.batch, cdiv(setting.nodes, options["BLOCK_ROW"])),
        (*setting.sizes(), channels),
        REDUCE=reduce,
        KEEP_WINNER=keep_winner,
        # rows that are not aligned are loaded value by value, which takes more registers
        BLOCK_D=min(128 if channels % 16 == 0 else 64, power_of_two(channels)),
        **options,
    )
