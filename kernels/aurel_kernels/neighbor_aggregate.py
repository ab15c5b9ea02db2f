"""Gather and reduce over given neighbour lists, forward and backward, for many dense graphs.

Forward: out_i = max, mean or sum over slots s of x[neighbors[i, s]]; a slot of -1 is empty, and a
node without neighbours gets 0. For max the winning slot is kept, one byte a channel; the first of
equal values wins, and NaN wins over everything, as in torch.

Backward: grad_n = sum over the edges (i, s) that point at n of w * grad_i, with w = 1 where slot s
won (max), 1 / degree_i (mean) or 1 (sum). Each program owns the node it writes and adds in a fixed
order, so results are the same in every run and no atomics are needed. Graphs of up to SMALL nodes
are summed in registers; larger ones walk over the reversed edges, sorted once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import launch, power_of_two

REDUCTIONS = ("max", "mean", "sum")
MAX_K = 64
SMALL = 64


def obstacle(k: int) -> str | None:
    """Say which size the kernels do not serve; None if they serve it."""
    return None if k <= MAX_K else f"k up to {MAX_K}, got {k}"


@triton.jit
def best_of_slot(b_value, m_slot, slot, b_best, b_winner):
    """Fold one slot's values [BLOCK_ROW, BLOCK_C] into the running maximum and its slot."""
    m_better = m_slot & ((b_value > b_best) | ((b_value != b_value) & (b_best == b_best)))
    return tl.where(m_better, b_value, b_best), tl.where(m_better, slot, b_winner)


@triton.jit
def forward_kernel(
    x_ptr,
    neighbor_ptr,
    out_ptr,
    winner_ptr,
    N,
    C,
    K,
    REDUCE: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_row = o_row < N
    m_c = o_c < C
    x_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    if REDUCE == "max":
        b_acc = tl.full((BLOCK_ROW, BLOCK_C), -float("inf"), tl.float32)
    else:
        b_acc = tl.zeros((BLOCK_ROW, BLOCK_C), tl.float32)
    b_winner = tl.zeros((BLOCK_ROW, BLOCK_C), tl.int32)
    b_degree = tl.zeros((BLOCK_ROW,), tl.float32)
    for slot in range(K):
        b_j = tl.load(neighbor_ptr + o_row * K + slot, mask=m_row, other=-1)
        m_j = b_j >= 0
        m_value = m_j[:, None] & m_c[None, :]
        # [BLOCK_ROW, BLOCK_C]
        b_value = tl.load(x_ptr + b_j[:, None] * C + o_c[None, :], mask=m_value, other=0.0)
        b_value = b_value.to(tl.float32)
        if REDUCE == "max":
            b_acc, b_winner = best_of_slot(b_value, m_j[:, None], slot, b_acc, b_winner)
        else:
            b_acc += b_value
        b_degree += m_j.to(tl.float32)
    if REDUCE == "mean":
        b_acc = b_acc / tl.maximum(b_degree, 1.0)[:, None]
    b_acc = tl.where((b_degree > 0)[:, None], b_acc, 0.0)
    p_out = (i_batch * N + o_row[:, None]) * C + o_c[None, :]
    m_out = m_row[:, None] & m_c[None, :]
    tl.store(out_ptr + p_out, b_acc.to(out_ptr.dtype.element_ty), mask=m_out)
    if REDUCE == "max":
        tl.store(winner_ptr + p_out, b_winner.to(tl.uint8), mask=m_out)


@triton.jit
def small_backward_kernel(
    grad_ptr,
    neighbor_ptr,
    winner_ptr,
    grad_x_ptr,
    N,
    C,
    K,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own all nodes of one graph and a strip of channels; add node after node, slot after slot."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    b_acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for i in range(N):
        b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)  # [BLOCK_C]
        if REDUCE == "max":
            b_slot = tl.load(winner_ptr + i * C + o_c, mask=m_c, other=0).to(tl.int32)
            b_j = tl.load(neighbor_ptr + i * K + b_slot, mask=m_c, other=-1).to(tl.int32)
            b_hit = (o_n[:, None] == b_j[None, :]).to(tl.float32)  # [BLOCK_N, BLOCK_C]
            degree = tl.load(neighbor_ptr + i * K) >= 0
            b_acc += tl.where(b_hit > 0, b_grad[None, :], 0.0)
            if RELATIVE:
                b_own = ((o_n == i) & degree)[:, None] & m_c[None, :]
                b_acc -= tl.where(b_own, b_grad[None, :], 0.0)
        else:
            b_hits = tl.zeros((BLOCK_N,), tl.float32)
            count = 0.0
            for slot in range(K):
                j = tl.load(neighbor_ptr + i * K + slot)
                b_hits += (o_n == j).to(tl.float32)
                count += (j >= 0).to(tl.float32)
            if REDUCE == "mean":
                b_hits = b_hits / tl.maximum(count, 1.0)
            b_acc += tl.where((b_hits > 0)[:, None], b_hits[:, None] * b_grad[None, :], 0.0)
    p_out = (i_batch * N + o_n[:, None]) * C + o_c[None, :]
    m_out = (o_n < N)[:, None] & m_c[None, :]
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_out)


@triton.jit
def backward_kernel(
    grad_ptr,
    neighbor_ptr,
    winner_ptr,
    first_ptr,
    edge_ptr,
    degree_ptr,
    grad_x_ptr,
    N,
    C,
    K,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Own one node and a strip of channels; walk over the edges that point at the node."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_node = tl.program_id(1)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    b_acc = tl.zeros((BLOCK_C,), tl.float32)
    if RELATIVE:
        if tl.load(degree_ptr + i_batch * N + i_node) > 0:
            b_acc -= tl.load(grad_ptr + i_node * C + o_c, mask=m_c, other=0.0).to(tl.float32)
    start = tl.load(first_ptr + i_batch * (N + 1) + i_node)
    stop = tl.load(first_ptr + i_batch * (N + 1) + i_node + 1)
    for e in range(start, stop):
        edge = tl.load(edge_ptr + i_batch * N * K + e)
        i = edge // K
        b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)
        if REDUCE == "max":
            b_slot = tl.load(winner_ptr + i * C + o_c, mask=m_c, other=0).to(tl.int32)
            b_grad = tl.where(b_slot == (edge % K).to(tl.int32), b_grad, 0.0)
        elif REDUCE == "mean":
            b_grad = b_grad / tl.load(degree_ptr + i_batch * N + i).to(tl.float32)
        b_acc += b_grad
    p_out = (i_batch * N + i_node) * C + o_c
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_c)


def forward(x: Tensor, neighbors: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    """Launch `forward_kernel`: x (B, N, C), neighbors (B, N, K) -> out (B, N, C), winner (uint8).

    `winner` is (B, N, C) for max and empty otherwise.
    """
    x, neighbors = x.contiguous(), neighbors.contiguous()
    batch, nodes, channels = x.shape
    out = torch.empty_like(x)
    winner = x.new_empty(x.shape if reduce == "max" else (0,), dtype=torch.uint8)
    block_row, block_c = 16, min(64, power_of_two(channels))
    launch(
        forward_kernel,
        (batch, triton.cdiv(nodes, block_row), triton.cdiv(channels, block_c)),
        x,
        neighbors,
        out,
        winner,
        nodes,
        channels,
        neighbors.shape[2],
        REDUCE=reduce,
        BLOCK_ROW=block_row,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return out, winner


def backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, reduce: str, relative: bool = False
) -> Tensor:
    """Return the gradient of x, (B, N, C); `relative` also takes away what x_i was taken from."""
    grad, neighbors = grad.contiguous(), neighbors.contiguous()
    batch, nodes, channels = grad.shape
    k = neighbors.shape[2]
    grad_x = torch.empty_like(grad)
    if nodes <= SMALL:
        block_c = min(64, power_of_two(channels))
        launch(
            small_backward_kernel,
            (batch, triton.cdiv(channels, block_c)),
            grad,
            neighbors,
            winner,
            grad_x,
            nodes,
            channels,
            k,
            REDUCE=reduce,
            RELATIVE=relative,
            BLOCK_N=power_of_two(nodes),
            BLOCK_C=block_c,
            num_warps=4,
        )
        return grad_x
    first, edges, degree = reversed_edges(neighbors)
    block_c = min(256, power_of_two(channels))
    launch(
        backward_kernel,
        (batch, nodes, triton.cdiv(channels, block_c)),
        grad,
        neighbors,
        winner,
        first,
        edges,
        degree,
        grad_x,
        nodes,
        channels,
        k,
        REDUCE=reduce,
        RELATIVE=relative,
        BLOCK_C=block_c,
        num_warps=2,
    )
    return grad_x


def reversed_edges(neighbors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the edges of each graph by the node they point at.

    Args:
        neighbors: (B, N, K) int64, -1 for an empty slot.

    Returns:
        first (B, N + 1): where each node's edges start; edges (B, N * K): i * K + slot, in order;
        degree (B, N): filled slots of each node.
    """
    batch, nodes, _ = neighbors.shape
    target = neighbors.flatten(1)
    target = torch.where(target < 0, nodes, target)
    target, edges = target.sort(dim=1, stable=True)
    bounds = torch.arange(nodes + 1, device=target.device).expand(batch, -1).contiguous()
    first = torch.searchsorted(target, bounds)
    return first, edges, (neighbors >= 0).sum(2)
