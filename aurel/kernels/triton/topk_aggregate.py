"""Aggregation over the graph of the K best scores, normalized by degree.

    out = D^-1/2 A D^-1/2 values,  D_ii = sum_j A_ij  (row degrees on both sides)

ties="exact": A holds exactly the K neighbors of `knn_graph`, loops included, so that the product is
the mean over them (`knn_aggregate`); nothing else is saved, and backward is that of
`neighbor_aggregate`.

ties="all": A_ij = 1 where the score of j is no worse than that of the K-th neighbor of i. Degrees
of other rows enter, so graphs have at most WHOLE_GRAPH nodes. `tie_kernel` writes each row of A in
the bits of one word, `average_kernel` weighs the values. Saved: the normalized adjacency W,
(B, N, N) float32. Backward: grad_values = W^T grad.

Where a weight is 0, the value of the source has no effect, even NaN. No gradient flows to x: a
choice has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.knn_aggregate import knn_aggregate
from aurel.kernels.triton.knn_exact import column_tile, plan, store_neighbors, tiles_of
from aurel.kernels.triton.knn_graph import example
from aurel.kernels.triton.knn_problem import problem_of
from aurel.kernels.triton.launch import cdiv, launch
from aurel.kernels.triton.scatter import scatter
from aurel.kernels.triton.selection import select_nearest
from aurel.kernels.triton.sizes import power_of_two


@triton.jit
def contribution(row_ptr, o_c, C):
    """Return one node's values [BLOCK_C], NaN where not finite, as in a product of matrices."""
    b_x = tl.load(row_ptr + o_c, mask=o_c < C, other=0.0).to(tl.float32)
    return tl.where(tl.abs(b_x) < float("inf"), b_x, float("nan"))


@triton.jit
def tie_words(b_score, m_free, b_neighbor, K: tl.constexpr):
    """Return rows of A as the bits of one word each: ones where no worse than the K-th neighbor."""
    o_k = tl.arange(0, b_neighbor.shape[1])
    o_col = tl.arange(0, b_score.shape[1])
    b_last = tl.max(tl.where(o_k[None, :] == K - 1, b_neighbor, -1), axis=1)
    m_last = o_col[None, :] == b_last[:, None]
    b_threshold = tl.max(tl.where(m_last, b_score, float("-inf")), axis=1)
    b_threshold = tl.where(b_last >= 0, b_threshold, float("inf"))
    m_edge = m_free & (b_score <= b_threshold[:, None])
    return tl.sum(tl.where(m_edge, tl.full((), 1, tl.int64) << o_col[None, :], 0), axis=1)


@triton.jit
def tie_kernel(
    row_tile_ptr,
    row_square_ptr,
    tile_ptr,
    square_ptr,
    bias_ptr,
    mask_ptr,
    source_mask_ptr,
    neighbor_ptr,
    word_ptr,
    N,
    C,
    K: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    LOOP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_SOURCE_MASK: tl.constexpr,
    METRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    row0 = tl.program_id(1) * BLOCK_ROW
    o_row = row0 + tl.arange(0, BLOCK_ROW)
    row_ptr = row_tile_ptr + i_batch * C * WIDTH + row0
    row_square_ptr += i_batch * WIDTH + row0
    tile_ptr += i_batch * C * WIDTH
    square_ptr += i_batch * WIDTH
    b_score, m_free = column_tile(
        (row_ptr, row_square_ptr, tile_ptr, square_ptr),
        (bias_ptr, mask_ptr + i_batch * N, source_mask_ptr + i_batch * N),
        (N, N, C),
        o_row,
        0,
        LOOP,
        HAS_BIAS,
        HAS_MASK,
        HAS_SOURCE_MASK,
        METRIC,
        ROW_WIDTH,
        WIDTH,
    )
    b_neighbor = select_nearest(b_score, m_free, K, BLOCK_K, BLOCK_ROW, WIDTH)
    neighbor_ptr += i_batch * N * K
    store_neighbors(neighbor_ptr, b_neighbor, o_row, o_row < N, K, DILATION, BLOCK_K)
    b_word = tie_words(b_score, m_free, b_neighbor, K)
    tl.store(word_ptr + i_batch * N + o_row, b_word, mask=o_row < N)


@triton.jit
def row_scales(word_ptr, o_n, N, WIDTH: tl.constexpr):
    """Return 1 / sqrt(degree) [nodes] of nodes of one graph."""
    b_word = tl.load(word_ptr + o_n, mask=o_n < N, other=0)
    b_bit = (b_word[:, None] >> tl.arange(0, WIDTH)[None, :]) & 1
    b_degree = tl.sum(b_bit.to(tl.float32), axis=1)
    return 1.0 / tl.sqrt(tl.maximum(b_degree, 1.0))


@triton.jit
def average_kernel(
    values_ptr,
    word_ptr,
    weight_ptr,
    out_ptr,
    N,
    C,
    WIDTH: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write rows of the weights, and of their product with a strip of the values."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_n = tl.arange(0, WIDTH)
    word_ptr += i_batch * N
    values_ptr += i_batch * N * C
    b_word = tl.load(word_ptr + o_row, mask=o_row < N, other=0)
    b_row_scale = row_scales(word_ptr, o_row, N, WIDTH)
    b_scale = row_scales(word_ptr, o_n, N, WIDTH)
    if tl.program_id(2) == 0:
        m_edge = ((b_word[:, None] >> o_n[None, :]) & 1) != 0
        b_weight = tl.where(m_edge, b_row_scale[:, None] * b_scale[None, :], 0.0)
        p_weight = i_batch * N * N + o_row[:, None] * N + o_n[None, :]
        tl.store(weight_ptr + p_weight, b_weight, mask=(o_row < N)[:, None] & (o_n < N)[None, :])
    b_acc = tl.zeros((BLOCK_ROW, BLOCK_C), tl.float32)
    for j in range(N):
        b_scale_j = tl.sum(tl.where(o_n == j, b_scale, 0.0), axis=0)
        b_value = b_scale_j * contribution(values_ptr + j * C, o_c, C)
        b_acc += tl.where((((b_word >> j) & 1) != 0)[:, None], b_value[None, :], 0.0)
    p_out = i_batch * N * C + o_row[:, None] * C + o_c[None, :]
    m_out = (o_row < N)[:, None] & (o_c < C)[None, :]
    b_out = b_acc * b_row_scale[:, None]
    tl.store(out_ptr + p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_out)


@triton.jit
def all_ties_backward_kernel(
    grad_ptr,
    weight_ptr,
    grad_values_ptr,
    N,
    C,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    grad_ptr += i_batch * N * C
    weight_ptr += i_batch * N * N
    b_acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for i in range(N):
        b_weight = tl.load(weight_ptr + i * N + o_n, mask=o_n < N, other=0.0)
        b_grad = contribution(grad_ptr + i * C, o_c, C)
        b_acc += tl.where((b_weight > 0)[:, None], b_weight[:, None] * b_grad[None, :], 0.0)
    p_out = i_batch * N * C + o_n[:, None] * C + o_c[None, :]
    m_out = (o_n < N)[:, None] & (o_c < C)[None, :]
    tl.store(grad_values_ptr + p_out, b_acc.to(grad_values_ptr.dtype.element_ty), mask=m_out)


def forward(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the aggregate (B, N, C'), the neighbors (B, N, K) int64, and the saved weights.

    Args:
        x: node features that are compared, (B, N, C), float32, float16 or bfloat16.
        values: node features that are averaged, (B, N, C').
        mask: (B, N) bool, True where the node exists, or None.
        k: number of neighbors.
        metric: "dot", "cosine", "l1" or "l2".
        ties: "exact" or "all"; the weights are (B, N, N) float32 for "all" and empty otherwise.
    """
    problem = problem_of(x, None, None, mask, None, k, metric, True, 1)
    values = values.contiguous()
    if ties == "exact":
        out, neighbors, _ = knn_aggregate(problem, values, "mean")
        return out, neighbors, x.new_empty(0, dtype=torch.float32)
    batch, nodes, channels = values.shape
    neighbors = problem.empty_neighbors()
    words = x.new_empty((batch, nodes), dtype=torch.int64)
    weights = x.new_empty((batch, nodes, nodes), dtype=torch.float32)
    out = torch.empty_like(values)
    options = plan(problem.setting)
    launch(
        tie_kernel,
        (batch, cdiv(nodes, options["BLOCK_ROW"])),
        *tiles_of(problem),
        *problem.tensors(),
        neighbors,
        words,
        nodes,
        x.shape[2],
        **options,
    )
    block_c = min(64, power_of_two(channels))
    launch(
        average_kernel,
        (batch, cdiv(nodes, 16), max(1, cdiv(channels, block_c))),
        values,
        words,
        weights,
        out,
        nodes,
        channels,
        WIDTH=options["WIDTH"],
        BLOCK_ROW=16,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return out, neighbors, weights


def backward(grad: Tensor, neighbors: Tensor, weights: Tensor, ties: str) -> Tensor:
    """Return the gradient of `values`, (B, N, C')."""
    if ties == "exact":
        return scatter(grad, neighbors, neighbors, grad.shape[1], "mean")
    grad = grad.contiguous()
    batch, nodes, channels = grad.shape
    grad_values = torch.empty_like(grad)
    block_c = min(64, power_of_two(channels))
    launch(
        all_ties_backward_kernel,
        (batch, cdiv(channels, block_c)),
        grad,
        weights,
        grad_values,
        nodes,
        channels,
        BLOCK_N=power_of_two(nodes),
        BLOCK_C=block_c,
        num_warps=8 if nodes > 32 else 4,
    )
    return grad_values


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans of both directions, on CPU tensors, to be compiled."""
    for nodes, channels, k, metric, dtype in (
        (17, 512, 4, "l2", torch.float32),
        (41, 40, 9, "dot", torch.bfloat16),
    ):
        x, _, _, mask, *_ = example(nodes, channels, k, metric, dtype, masked=metric == "l2")
        neighbors = torch.zeros(2, nodes, k, dtype=torch.int64)
        weights = torch.empty(2, nodes, nodes)
        yield partial(forward, x, x, mask, k, "dot", "exact")
        yield partial(forward, x, x, mask, k, metric, "all")
        yield partial(backward, x, neighbors, weights, "all")
    yield partial(backward, x, neighbors, weights, "exact")
