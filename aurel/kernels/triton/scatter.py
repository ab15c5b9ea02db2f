"""Gradients of reductions over neighbor lists: each source sums over its edges.

grad_j = sum over the edges (i, s) with source j of w * grad_i, with w = 1 where j won (max),
1 / degree_i (mean) or 1 (sum). A program owns the node that it writes, and adds its edges in the
order of i, so that every run gives the same bits, without atomics. It loads BLOCK_E of them at a
time, so that a node with many does not wait for each.

Small graphs need no edges: a program owns a strip of channels of a whole graph, and adds the
gradient of each i to the nodes that won, or that the few slots of i list.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.reversed_edges import reversed_edges
from aurel.kernels.triton.sizes import WHOLE_GRAPH, power_of_two

FEW_SLOTS = 16  # that a program compares with every node


@triton.jit
def scatter_kernel(
    grad_ptr,
    neighbor_ptr,
    first_ptr,
    edge_ptr,
    winner_ptr,
    grad_x_ptr,
    N,
    M,
    C,
    K: tl.constexpr,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    i_node = tl.program_id(1)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    edge_ptr += i_batch * N * K
    first_ptr += i_batch * (M + 1) + i_node
    o_k = tl.arange(0, BLOCK_K)
    b_acc = tl.zeros((BLOCK_C,), tl.float32)
    if RELATIVE:
        m_own = m_c & (tl.load(neighbor_ptr + i_node * K) >= 0)
        b_acc -= tl.load(grad_ptr + i_node * C + o_c, mask=m_own, other=0.0).to(tl.float32)
    first = tl.load(first_ptr)
    stop = tl.load(first_ptr + 1)
    last = -1
    for e0 in range(first, stop, BLOCK_E):
        for step in tl.static_range(BLOCK_E):
            i = tl.load(edge_ptr + e0 + step, mask=e0 + step < stop, other=-K).to(tl.int32) // K
            m_edge = m_c & (i >= 0)
            if REDUCE == "max":
                m_edge = m_edge & (i != last)  # a node that is listed twice wins once
                last = i
            b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_edge, other=0.0).to(tl.float32)
            if REDUCE == "max":
                b_winner = tl.load(winner_ptr + i * C + o_c, mask=m_edge, other=0).to(tl.int32)
                b_grad = tl.where(b_winner == i_node, b_grad, 0.0)
            elif REDUCE == "mean":
                b_slot = tl.load(neighbor_ptr + i * K + o_k, mask=(o_k < K) & (i >= 0), other=-1)
                degree = tl.sum(((b_slot >= 0) & (b_slot < M)).to(tl.float32), axis=0)
                b_grad = b_grad / tl.maximum(degree, 1.0)
            b_acc += b_grad
    p_out = i_batch * M * C + i_node * C + o_c
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_c)


@triton.jit
def whole_graph_kernel(
    grad_ptr,
    neighbor_ptr,
    winner_ptr,
    grad_x_ptr,
    N,
    M,
    C,
    K: tl.constexpr,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own a strip of channels of one graph."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_m = tl.arange(0, BLOCK_M)
    o_k = tl.arange(0, BLOCK_K)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    b_acc = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    if RELATIVE:
        m_own = tl.load(neighbor_ptr + o_m * K, mask=o_m < N, other=-1) >= 0
        p_own = grad_ptr + o_m[:, None] * C + o_c[None, :]
        b_own = tl.load(p_own, mask=m_own[:, None] & m_c[None, :], other=0.0)
        b_acc -= b_own.to(tl.float32)
    for i in tl.range(0, N, loop_unroll_factor=4):
        if REDUCE == "max":
            b_slot = tl.load(neighbor_ptr + i * K + o_k, mask=o_k < K, other=-1)
            filled = tl.max(((b_slot >= 0) & (b_slot < M)).to(tl.int32), axis=0) > 0
            m_edge = m_c & filled
            b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_edge, other=0.0).to(tl.float32)
            b_winner = tl.load(winner_ptr + i * C + o_c, mask=m_edge, other=0).to(tl.int32)
            b_acc += tl.where(b_winner[None, :] == o_m[:, None], b_grad[None, :], 0.0)
        else:
            b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)
            b_count = tl.zeros((BLOCK_M,), tl.float32)  # of the slots that list each node
            degree = 0.0
            for slot in tl.static_range(K):
                j = tl.load(neighbor_ptr + i * K + slot)
                b_count += (o_m == j).to(tl.float32)
                degree += ((j >= 0) & (j < M)).to(tl.float32)
            if REDUCE == "mean":
                b_grad = b_grad / tl.maximum(degree, 1.0)
            b_edges = b_count[:, None] * b_grad[None, :]
            b_acc += tl.where((b_count > 0)[:, None], b_edges, 0.0)
    p_out = i_batch * M * C + o_m[:, None] * C + o_c[None, :]
    m_out = (o_m < M)[:, None] & m_c[None, :]
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_out)


def scatter(
    grad: Tensor,
    neighbors: Tensor,
    winner: Tensor,
    nodes: int,
    reduce: str,
    relative: bool = False,
) -> Tensor:
    """Return the gradient of the sources, (B, M, C), in the dtype of `grad`.

    Args:
        grad: gradient of the reduction, (B, N, C).
        neighbors: (B, N, K) int64; indices outside 0..M-1 are empty slots.
        winner: winning nodes, (B, N, C); read for "max" only.
        nodes: M.
        reduce: "max", "mean" or "sum".
        relative: N = M, and the node itself was subtracted from the reduction: where it has
            neighbors (the first slot is filled), the sum starts with -grad_j.
    """
    grad, neighbors = grad.contiguous(), neighbors.contiguous()
    batch, targets, channels = grad.shape
    if nodes == targets:
        grad_x = torch.empty_like(grad)
    else:
        grad_x = grad.new_empty((batch, nodes, channels))
    k = neighbors.shape[2]
    if max(targets, nodes) <= WHOLE_GRAPH and (reduce == "max" or k <= FEW_SLOTS):
        launch = whole_graph_plan(batch, targets, nodes, channels, k, reduce, relative)
        launch(grad, neighbors, winner.contiguous(), grad_x)
        return grad_x
    first, edges = reversed_edges(neighbors, nodes)
    launch = plan(batch, targets, nodes, channels, k, reduce, relative)
    launch(grad, neighbors, first, edges, winner.contiguous(), grad_x)
    return grad_x


@lru_cache(PLANS)
def whole_graph_plan(
    batch: int, targets: int, nodes: int, channels: int, k: int, reduce: str, relative: bool
) -> Launch:
    """Return the launch of `whole_graph_kernel`: many programs share a graph, few channels each."""
    block_m = power_of_two(nodes)
    block_c = 64 if block_m == 16 else 32
    return Launch(
        whole_graph_kernel,
        (batch, cdiv(channels, block_c)),
        (targets, nodes, channels),
        K=k,
        REDUCE=reduce,
        RELATIVE=relative,
        BLOCK_M=block_m,
        BLOCK_K=power_of_two(k, 1),
        BLOCK_C=block_c,
        num_warps=block_m * block_c // 512,
    )


@lru_cache(PLANS)
def plan(
    batch: int, targets: int, nodes: int, channels: int, k: int, reduce: str, relative: bool
) -> Launch:
    """Return the launch of `scatter_kernel`."""
    block_c = min(512, power_of_two(channels))
    return Launch(
        scatter_kernel,
        (batch, nodes, cdiv(channels, block_c)),
        (targets, nodes, channels),
        K=k,
        REDUCE=reduce,
        RELATIVE=relative,
        BLOCK_K=power_of_two(k, 1),
        BLOCK_E=4 if nodes <= 64 else 8,
        BLOCK_C=block_c,
        num_warps=max(1, block_c // 128),
    )
