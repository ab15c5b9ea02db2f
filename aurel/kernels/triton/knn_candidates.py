"""Nearest neighbors by l2 in large graphs: a fast choice of candidates, then exact distances.

1. `candidate_kernel` takes |x_i|^2 + |s_j|^2 - 2 x_i.s_j of all pairs, on tensor cores where there
   are some, less all that its rounding can amount to: it never exceeds the distance. The KEPT
   groups of GROUP adjacent columns with the smallest minima are candidates. (The k nearest columns
   lie in the k groups of smallest minimum, since each of those holds a column that is no farther.)
   Scores are cut to share 32 bits with the number of their group. With the groups goes the largest
   of their minima: no column of another group is nearer than that.
2. `knn_rerank` takes the differences of every candidate, and chooses by (distance, index). A row
   whose last neighbor is not below the bound gets a flag.
3. Rows with a flag are chosen again from all pairs, by `knn_exact`.

The origin moves to the median, channel by channel, of three of the sources, so that features far
from 0 do not cancel; the result is right for any origin, but flags are rare only for a good one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.channel_tiles import load_nodes
from aurel.kernels.triton.knn_exact import exact_neighbors
from aurel.kernels.triton.knn_problem import Problem, Setting
from aurel.kernels.triton.knn_rerank import rerank
from aurel.kernels.triton.launch import INTERPRETED, cdiv, current_target, launch
from aurel.kernels.triton.origin import squares
from aurel.kernels.triton.precision import product_precision
from aurel.kernels.triton.scores import add_bias, free_pairs, present
from aurel.kernels.triton.selection import (
    SHORT_LAST,
    merge_keys,
    pack_short_keys,
    unpack_indices,
    unpack_rounded_scores,
)
from aurel.kernels.triton.sizes import power_of_two

LOWEST = tl.constexpr(-3.4028234663852886e38)  # finite, so that `pack_short_keys` can round it down


@triton.jit
def products(
    graph,
    o_row,
    o_col,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return x_i.s_j from the origin of the sources.

    `graph` holds pointers to nodes, sources and origin of one graph, N, M and C.
    """
    x_ptr, source_ptr, origin_ptr, N, M, C = graph
    b_product = tl.zeros((BLOCK_ROW, BLOCK_COL), tl.float32)
    for c0 in range(0, C, BLOCK_C):
        o_c = c0 + tl.arange(0, BLOCK_C)
        b_origin = tl.load(origin_ptr + o_c, mask=o_c < C, other=0.0)[None, :]
        b_row = load_nodes(x_ptr, o_row, o_c, N, C) - b_origin
        b_col = load_nodes(source_ptr, o_col, o_c, M, C) - b_origin
        b_product = tl.dot(b_row, tl.trans(b_col), b_product, input_precision=PRECISION)
    return b_product


@triton.jit
def lower_scores(b_squares, b_product, p_bias, m_free, HAS_BIAS: tl.constexpr):
    """Return scores that do not exceed the exact ones; +inf where a row may not choose a column."""
    b_score = b_squares - 2.0 * b_product
    # after an overflow nothing is known of the exact score
    b_score = tl.where(tl.abs(b_score) < float("inf"), b_score, LOWEST)
    if HAS_BIAS:
        b_score = add_bias(b_score, p_bias, m_free)
        b_score = tl.maximum(b_score, LOWEST)
    return tl.where(m_free, b_score, float("inf"))


@triton.jit
def bounds_of(b_best, C, BITS: tl.constexpr):
    """Return the largest minimum of the groups of each row, less its rounding error."""
    b_bound = unpack_rounded_scores(tl.max(~b_best, axis=1), BITS)
    b_error = 4.8e-7 * tl.abs(b_bound) + C * 1e-37  # of the last sum, and of the smallest floats
    return tl.where(b_bound < float("inf"), b_bound - b_error, float("inf"))


@triton.jit
def candidate_kernel(
    x_ptr,
    source_ptr,
    origin_ptr,
    row_square_ptr,
    square_ptr,
    bias_ptr,
    mask_ptr,
    source_mask_ptr,
    group_ptr,
    bound_ptr,
    N,
    M,
    C,
    bias_step,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    KEPT: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_COL: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    GROUPS: tl.constexpr = BLOCK_COL // GROUP
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    x_ptr += i_batch * N * C
    source_ptr += i_batch * M * C
    origin_ptr += i_batch * C
    graph = (x_ptr, source_ptr, origin_ptr, N, M, C)
    square_ptr += i_batch * M
    bias_ptr += i_batch * bias_step
    m_row = present(mask_ptr + i_batch * N, o_row, N, HAS_MASK)
    # With this factor, scores that are rounded, or cut to tf32, do not exceed the exact ones.
    shrink = 1.0 - (C * 1.2e-7 + 1.6e-5)
    b_row_square = shrink * tl.load(row_square_ptr + i_batch * N + o_row, mask=m_row, other=0.0)
    b_best = tl.full((BLOCK_ROW, KEPT), ~SHORT_LAST, tl.int32)
    for n0 in range(0, M, BLOCK_COL):
        o_col = n0 + tl.arange(0, BLOCK_COL)
        m_col = present(source_mask_ptr + i_batch * M, o_col, M, HAS_SOURCE_MASK)
        m_free = free_pairs(m_row, m_col, o_row, o_col, LOOP)
        b_square = shrink * tl.load(square_ptr + o_col, mask=m_col, other=0.0)
        b_product = products(graph, o_row, o_col, BLOCK_ROW, BLOCK_COL, BLOCK_C, PRECISION)
        b_squares = b_row_square[:, None] + b_square[None, :]
        p_bias = bias_ptr + o_row[:, None] * M + o_col[None, :]
        b_score = lower_scores(b_squares, b_product, p_bias, m_free, HAS_BIAS)
        if GROUP > 1:
            b_score = tl.min(tl.reshape(b_score, (BLOCK_ROW, GROUPS, GROUP)), axis=2)
        o_group = n0 // GROUP + tl.arange(0, GROUPS)
        b_best = merge_keys(b_best, pack_short_keys(b_score, o_group[None, :], BITS), KEPT)
    tl.store(bound_ptr + i_batch * N + o_row, bounds_of(b_best, C, BITS), mask=o_row < N)
    p_group = (i_batch * N + o_row[:, None]) * KEPT + tl.arange(0, KEPT)[None, :]
    tl.store(group_ptr + p_group, unpack_indices(~b_best, BITS), mask=(o_row < N)[:, None])


def groups(ranks: int) -> tuple[int, int]:
    """Return how many groups are kept for a list of `ranks`, and their size."""
    kept = power_of_two(ranks + 4)
    return kept, max(1, 64 // kept)


def tiling(light: bool) -> dict[str, int]:
    """Return the tile of `candidate_kernel` and its warps.

    Args:
        light: short lists, no masks, and aligned rows. Other calls need the registers of more
            warps.
    """
    backend, version = ("cuda", 90) if INTERPRETED else architecture()
    if backend == "hip":
        return {"BLOCK_ROW": 64, "BLOCK_C": 16, "num_warps": 8, "num_stages": 1}
    if not light:
        return {"BLOCK_ROW": 32, "BLOCK_C": 16, "num_warps": 8, "num_stages": 2}
    # From 9.0 on, products read shared memory, which leaves registers for more channels.
    block_c = 32 if version >= 90 else 16
    return {"BLOCK_ROW": 64, "BLOCK_C": block_c, "num_warps": 4, "num_stages": 2}


def architecture() -> tuple[str, Any]:
    """Return "cuda" and ten times the compute capability, or "hip" and a name."""
    found = current_target()
    return found.backend, found.arch


def candidate_plan(setting: Setting, kept: int, group: int) -> dict[str, Any]:
    """Return the options of `candidate_kernel`."""
    columns = kept * group
    padded = cdiv(setting.sources, columns) * columns
    masked = setting.bias_dims > 0 or setting.masked or setting.sources_masked
    return {
        "KEPT": kept,
        "GROUP": group,
        "BITS": (padded // group - 1).bit_length(),
        "BLOCK_COL": columns,
        "PRECISION": product_precision(),
        **tiling(kept == 16 and not masked and setting.channels % 16 == 0),
        "maxnreg": 255,  # otherwise ptxas spills a few bytes to fit one more block
    }


def candidate_neighbors(problem: Problem, neighbors: Tensor) -> None:
    """Write the neighbors, (B, N, K); the metric is l2."""
    x, sources, setting = problem.x, problem.sources, problem.setting
    batch, nodes, _ = x.shape
    kept, group = groups(setting.ranks)
    lists = x.new_empty((batch, nodes, kept), dtype=torch.int32)
    bounds = x.new_empty((batch, nodes), dtype=torch.float32)
    flags = x.new_empty((batch, nodes), dtype=torch.int8)
    row_squares, center = squares(x, sources)
    options = candidate_plan(setting, kept, group)
    launch(
        candidate_kernel,
        (batch, cdiv(nodes, options["BLOCK_ROW"])),
        x,
        sources,
        center,
        row_squares,
        row_squares if problem.own else squares(sources, sources)[0],
        *problem.tensors(),
        lists,
        bounds,
        *setting.sizes(),
        **setting.options(),
        **options,
    )
    rerank(problem, lists, bounds, group, neighbors, flags)
    exact_neighbors(problem, neighbors, flags)
