"""Aggregation over the graph of the K best scores, normalised by degree, in one launch.

    out = D^-1/2 A D^-1/2 values,  D_ii = sum_j A_ij  (row degrees on both sides)

ties="exact": A holds exactly the K neighbours of `knn`, loops included, so that the product is the
mean over them (`knn_aggregate`); nothing else is saved, and backward is that of
`neighbor_aggregate`.

ties="all": A_ij = 1 where the score of j is no worse than that of the K-th neighbour of i. Degrees
of other rows enter, so a program holds a whole graph, of at most WHOLE_GRAPH nodes. Saved: the
normalised adjacency W, (B, N, N) float32. Backward: grad_values = W^T grad.

Where a weight is 0, whatever stands at the other node, NaN included, has no effect. No gradient
flows to x: a choice has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels import neighbor_aggregate
from aurel_kernels.knn import candidates, plan, store_neighbors
from aurel_kernels.knn_aggregate import knn_aggregate
from aurel_kernels.launch import launch
from aurel_kernels.sizes import power_of_two
from aurel_kernels.tiles import select_nearest


@triton.jit
def contribution(row_ptr, o_c, C):
    """Return one node's values [BLOCK_C], NaN where not finite, as a product would spread them."""
    b_x = tl.load(row_ptr + o_c, mask=o_c < C, other=0.0).to(tl.float32)
    return tl.where(tl.abs(b_x) < float("inf"), b_x, float("nan"))


@triton.jit
def all_ties_kernel(
    x_ptr,
    mask_ptr,
    values_ptr,
    neighbor_ptr,
    weight_ptr,
    out_ptr,
    N,
    C,
    CV,
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
    UPCAST: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BLOCK_COL)
    o_k = tl.arange(0, BLOCK_K)
    b_score, m_free = candidates(
        x_ptr + i_batch * N * C,
        x_ptr,
        mask_ptr + i_batch * N,
        o_n,
        o_n,
        N,
        C,
        LOOP,
        HAS_MASK,
        WHOLE,
        METRIC,
        BLOCK_ROW,
        BLOCK_COL,
        BLOCK_C,
        UPCAST,
    )
    b_neighbor = select_nearest(b_score, m_free, o_n, K, BLOCK_K, BLOCK_ROW, BLOCK_COL)
    store_neighbors(neighbor_ptr + i_batch * N * K, b_neighbor, o_n, N, K, BLOCK_K)
    b_last = tl.max(tl.where(o_k[None, :] == K - 1, b_neighbor, -1), axis=1)
    m_last = o_n[None, :] == b_last[:, None]
    b_threshold = tl.sum(tl.where(m_last, b_score, 0.0), axis=1)
    b_threshold = tl.where(b_last >= 0, b_threshold, float("inf"))
    m_edge = m_free & (b_score <= b_threshold[:, None])
    b_degree = tl.sum(m_edge.to(tl.float32), axis=1)
    b_scale = 1.0 / tl.sqrt(tl.maximum(b_degree, 1.0))
    b_weight = tl.where(m_edge, b_scale[:, None] * b_scale[None, :], 0.0)
    m_pair = (o_n < N)[:, None] & (o_n < N)[None, :]
    p_weight = i_batch * N * N + o_n[:, None] * N + o_n[None, :]
    tl.store(weight_ptr + p_weight, b_weight, mask=m_pair)
    # A row of A in the bits of one word: a column of A is then at hand without a reduction.
    b_word = tl.sum(tl.where(m_edge, tl.full((), 1, tl.int64) << o_n[None, :], 0), axis=1)
    values_ptr += i_batch * N * CV
    for c0 in range(0, CV, BLOCK_D):
        o_c = c0 + tl.arange(0, BLOCK_D)
        b_acc = tl.zeros((BLOCK_COL, BLOCK_D), tl.float32)
        for j in range(N):
            b_scale_j = tl.sum(tl.where(o_n == j, b_scale, 0.0), axis=0)
            b_value = b_scale_j * contribution(values_ptr + j * CV, o_c, CV)
            m_edge_j = ((b_word >> j) & 1) != 0
            b_acc += tl.where(m_edge_j[:, None], b_value[None, :], 0.0)
        b_acc = b_acc * b_scale[:, None]
        p_out = i_batch * N * CV + o_n[:, None] * CV + o_c[None, :]
        m_out = (o_n < N)[:, None] & (o_c < CV)[None, :]
        tl.store(out_ptr + p_out, b_acc.to(out_ptr.dtype.element_ty), mask=m_out)


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
    x: Tensor, values: Tensor, k: int, metric: str, ties: str, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the aggregate (B, N, C'), the neighbours (B, N, K) int64, and what backward needs.

    Args:
        x: node features that are compared, (B, N, C), float32, float16 or bfloat16.
        values: node features that are averaged, (B, N, C').
        k: number of neighbours.
        metric: "dot", "cosine", "l1" or "l2".
        ties: "exact" or "all"; the third result is (B, N, N) float32 for "all" and empty otherwise.
        mask: (B, N) bool, True where the node exists, or None.
    """
    if ties == "exact":
        out, neighbors, _ = knn_aggregate(x, values, k, metric, True, mask, "mean")
        return out, neighbors, x.new_empty(0, dtype=torch.float32)
    x, values = x.contiguous(), values.contiguous()
    mask = None if mask is None else mask.contiguous()
    batch, nodes, channels = x.shape
    neighbors = x.new_empty((batch, nodes, k), dtype=torch.int64)
    weights = x.new_empty((batch, nodes, nodes), dtype=torch.float32)
    out = torch.empty_like(values)
    options = plan(x, k, metric, True, mask)
    columns = options["BLOCK_COL"]
    options["BLOCK_ROW"] = columns
    if columns == 64:
        # Triton 3.6 fails to compile a 64 x 64 product of halves, for Blackwell, with 4 or 8 warps.
        options["num_warps"] = 16
    launch(
        all_ties_kernel,
        (batch,),
        x,
        x if mask is None else mask,
        values,
        neighbors,
        weights,
        out,
        nodes,
        channels,
        values.shape[2],
        BLOCK_D=64,
        **options,
    )
    return out, neighbors, weights


def backward(grad: Tensor, neighbors: Tensor, weights: Tensor, ties: str) -> Tensor:
    """Return the gradient of `values`, (B, N, C')."""
    if ties == "exact":
        return neighbor_aggregate.backward(grad, neighbors, neighbors, "mean")
    grad = grad.contiguous()
    batch, nodes, channels = grad.shape
    grad_values = torch.empty_like(grad)
    block_c = min(64, power_of_two(channels))
    launch(
        all_ties_backward_kernel,
        (batch, triton.cdiv(channels, block_c)),
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
    """Yield calls that cover the tables of both directions, on CPU tensors, to be compiled."""
    for nodes, channels, k, dtype in (
        (12, 512, 4, torch.float32),
        (41, 512, 9, torch.float32),
        (41, 40, 9, torch.bfloat16),
    ):
        x = torch.empty(2, nodes, channels, dtype=dtype)
        neighbors = torch.zeros(2, nodes, k, dtype=torch.int64)
        weights = torch.empty(2, nodes, nodes)
        yield partial(forward, x, x, k, "dot", "exact", None)
        yield partial(forward, x, x, k, "dot", "all", None)
        yield partial(backward, x, neighbors, weights, "all")
