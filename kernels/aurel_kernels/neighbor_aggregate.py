"""Gather and reduce over given neighbour lists, forward and backward, for many dense graphs.

Forward: out_i = max, mean or sum over slots s of x[neighbors[i, s]]; a slot of -1 is empty, and a
node without neighbours gets 0. For max the winning slot is saved, one byte a channel: the first of
equal values wins, and NaN wins over everything, as in torch. Nothing else is saved.

Backward: grad_n = sum over the edges (i, s) that point at n of w * grad_i, with w = 1 where slot s
won (max), 1 / degree_i (mean) or 1 (sum). `relative` is for a maximum less the node itself: where
node n has neighbours, -grad_n comes in front of the sum. Each program owns the node that it writes
and adds in the order of i, so that every run gives the same bits, without atomics. Up to SCAN
nodes, it looks at all i; beyond, it walks over the reversed edges, sorted once.

x, grad (B, N, C), contiguous; neighbors (B, N, K) int64. Sizes: see `sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import launch
from aurel_kernels.sizes import power_of_two

SCAN = 256


@triton.jit
def start_fold(REDUCE: tl.constexpr, BLOCK_ROW: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return what `fold_slot` starts from: an empty reduction, and slot 0."""
    START: tl.constexpr = -float("inf") if REDUCE == "max" else 0.0
    b_acc = tl.full((BLOCK_ROW, BLOCK_C), START, tl.float32)
    return b_acc, tl.zeros((BLOCK_ROW, BLOCK_C), tl.int32)


@triton.jit
def fold_slot(x_ptr, b_j, o_c, C, slot, b_acc, b_winner, REDUCE: tl.constexpr):
    """Fold the features of nodes b_j [BLOCK_ROW] (-1: none) into the running reduction."""
    m_j = (b_j >= 0)[:, None]
    b_x = tl.load(
        x_ptr + b_j[:, None] * C + o_c[None, :], mask=m_j & (o_c < C)[None, :], other=0.0
    ).to(tl.float32)
    if REDUCE == "max":
        m_better = m_j & ((b_x > b_acc) | ((b_x != b_x) & (b_acc == b_acc)))
        b_acc = tl.where(m_better, b_x, b_acc)
        b_winner = tl.where(m_better, slot, b_winner)
    else:
        b_acc += b_x
    return b_acc, b_winner


@triton.jit
def finish_fold(b_acc, b_degree, REDUCE: tl.constexpr):
    """Return the reduction [BLOCK_ROW, BLOCK_C] over b_degree neighbours; 0 where there is none."""
    if REDUCE == "mean":
        b_acc = b_acc / tl.maximum(b_degree, 1.0)[:, None]
    return tl.where((b_degree > 0)[:, None], b_acc, 0.0)


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
    KEEP_WINNER: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    o_row = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_row = o_row < N
    x_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    b_acc, b_winner = start_fold(REDUCE, BLOCK_ROW, BLOCK_C)
    b_degree = tl.zeros((BLOCK_ROW,), tl.float32)
    for slot in range(K):
        b_j = tl.load(neighbor_ptr + o_row * K + slot, mask=m_row, other=-1).to(tl.int32)
        b_j = tl.where(b_j < N, b_j, -1)  # nothing is read from beyond x
        b_acc, b_winner = fold_slot(x_ptr, b_j, o_c, C, slot, b_acc, b_winner, REDUCE)
        b_degree += (b_j >= 0).to(tl.float32)
    b_out = finish_fold(b_acc, b_degree, REDUCE)
    p_out = i_batch * N * C + o_row[:, None] * C + o_c[None, :]
    m_out = m_row[:, None] & (o_c < C)[None, :]
    tl.store(out_ptr + p_out, b_out.to(out_ptr.dtype.element_ty), mask=m_out)
    if KEEP_WINNER:
        tl.store(winner_ptr + p_out, b_winner.to(tl.uint8), mask=m_out)


@triton.jit
def scan_kernel(
    grad_ptr,
    neighbor_ptr,
    winner_ptr,
    grad_x_ptr,
    N,
    C,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Backward: own BLOCK_N nodes and a strip of channels, and look at every node of the graph."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_k = tl.arange(0, BLOCK_K)
    m_c = o_c < C
    m_out = (o_n < N)[:, None] & m_c[None, :]
    p_out = o_n[:, None] * C + o_c[None, :]
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    neighbor_ptr += i_batch * N * K
    b_acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    if RELATIVE:
        m_some = tl.load(neighbor_ptr + o_n * K, mask=o_n < N, other=-1) >= 0
        m_own = m_some[:, None] & m_c[None, :]
        b_acc -= tl.load(grad_ptr + p_out, mask=m_own, other=0.0).to(tl.float32)
    for i in range(N):
        b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)  # [BLOCK_C]
        if REDUCE == "max":
            b_slot = tl.load(winner_ptr + i * C + o_c, mask=m_c, other=0).to(tl.int32)
            b_j = tl.load(neighbor_ptr + i * K + b_slot, mask=m_c, other=-1).to(tl.int32)
            b_acc += tl.where(o_n[:, None] == b_j[None, :], b_grad[None, :], 0.0)
        else:
            b_j = tl.load(neighbor_ptr + i * K + o_k, mask=o_k < K, other=-1).to(tl.int32)
            b_hits = tl.sum((o_n[:, None] == b_j[None, :]).to(tl.float32), axis=1)
            if REDUCE == "mean":
                b_grad = b_grad / tl.maximum(tl.sum((b_j >= 0).to(tl.float32), axis=0), 1.0)
            # where, and not a product alone: a gradient that is NaN stays with the neighbours
            b_acc += tl.where((b_hits > 0)[:, None], b_hits[:, None] * b_grad[None, :], 0.0)
    p_out += i_batch * N * C
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_out)


@triton.jit
def walk_kernel(
    grad_ptr,
    first_ptr,
    edge_ptr,
    degree_ptr,
    winner_ptr,
    grad_x_ptr,
    N,
    C,
    K,
    REDUCE: tl.constexpr,
    RELATIVE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Backward: own one node and a strip of channels, and walk over the edges that point at it."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_node = tl.program_id(1)
    o_c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    grad_ptr += i_batch * N * C
    winner_ptr += i_batch * N * C
    degree_ptr += i_batch * N
    edge_ptr += i_batch * N * K
    first_ptr += i_batch * (N + 1) + i_node
    b_acc = tl.zeros((BLOCK_C,), tl.float32)
    if RELATIVE:
        m_own = m_c & (tl.load(degree_ptr + i_node) > 0)
        b_acc -= tl.load(grad_ptr + i_node * C + o_c, mask=m_own, other=0.0).to(tl.float32)
    for e in range(tl.load(first_ptr), tl.load(first_ptr + 1)):
        edge = tl.load(edge_ptr + e).to(tl.int32)
        i = edge // K
        b_grad = tl.load(grad_ptr + i * C + o_c, mask=m_c, other=0.0).to(tl.float32)
        if REDUCE == "max":
            b_slot = tl.load(winner_ptr + i * C + o_c, mask=m_c, other=0).to(tl.int32)
            b_grad = tl.where(b_slot == edge % K, b_grad, 0.0)
        elif REDUCE == "mean":
            b_grad = b_grad / tl.load(degree_ptr + i).to(tl.float32)
        b_acc += b_grad
    p_out = i_batch * N * C + i_node * C + o_c
    tl.store(grad_x_ptr + p_out, b_acc.to(grad_x_ptr.dtype.element_ty), mask=m_c)


def forward(
    x: Tensor, neighbors: Tensor, reduce: str, keep_winner: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the reduction, (B, N, C), and the slots that attained the maxima.

    Args:
        x: node features, (B, N, C), float32, float16 or bfloat16.
        neighbors: (B, N, K) int64, -1 for an empty slot.
        reduce: "max", "mean" or "sum".
        keep_winner: make the second result, (B, N, C) uint8; it is empty otherwise.
    """
    x, neighbors = x.contiguous(), neighbors.contiguous()
    batch, nodes, channels = x.shape
    keep_winner = keep_winner and reduce == "max"
    out = torch.empty_like(x)
    winner = x.new_empty(x.shape if keep_winner else (0,), dtype=torch.uint8)
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
        KEEP_WINNER=keep_winner,
        BLOCK_ROW=block_row,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return out, winner


def backward(
    grad: Tensor, neighbors: Tensor, winner: Tensor, reduce: str, relative: bool = False
) -> Tensor:
    """Return the gradient of x, (B, N, C), in the dtype of `grad`.

    Args:
        grad: gradient of the reduction, (B, N, C).
        neighbors: (B, N, K) int64, -1 for an empty slot.
        winner: second result of `forward`; read for "max" only.
        reduce: "max", "mean" or "sum".
        relative: the node itself was taken from the reduction.
    """
    grad, neighbors = grad.contiguous(), neighbors.contiguous()
    batch, nodes, channels = grad.shape
    k = neighbors.shape[2]
    grad_x = torch.empty_like(grad)
    if nodes <= SCAN:
        block_n = min(64, power_of_two(nodes))
        block_c = min(64, power_of_two(channels))
        launch(
            scan_kernel,
            (batch, triton.cdiv(nodes, block_n), triton.cdiv(channels, block_c)),
            grad,
            neighbors,
            winner,
            grad_x,
            nodes,
            channels,
            K=k,
            BLOCK_K=power_of_two(k, 2),
            REDUCE=reduce,
            RELATIVE=relative,
            BLOCK_N=block_n,
            BLOCK_C=block_c,
            num_warps=4,
        )
        return grad_x
    first, edges, degree = reversed_edges(neighbors)
    block_c = min(256, power_of_two(channels))
    launch(
        walk_kernel,
        (batch, nodes, triton.cdiv(channels, block_c)),
        grad,
        first,
        edges,
        degree,
        winner,
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
    """Sort the edges of each graph by the node that they point at.

    Args:
        neighbors: (B, N, K) int64, -1 for an empty slot.

    Returns:
        first (B, N + 1): where the edges of each node start; edges (B, N * K): i * K + slot, in
        order of i; degree (B, N): filled slots of each node.
    """
    batch, nodes, _ = neighbors.shape
    target = neighbors.flatten(1)
    target = target.where(target >= 0, nodes)  # empty slots stand behind the last node
    target, edges = target.sort(dim=1, stable=True)
    bounds = torch.arange(nodes + 1, device=target.device).expand(batch, -1).contiguous()
    return torch.searchsorted(target, bounds), edges, (neighbors >= 0).sum(2)


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the tables above, on CPU tensors, to be compiled."""
    for nodes, channels, k in ((12, 512, 4), (41, 40, 9), (300, 192, 9)):
        for reduce, dtype in (("max", torch.float32), ("mean", torch.bfloat16)):
            x = torch.empty(2, nodes, channels, dtype=dtype)
            neighbors = torch.zeros(2, nodes, k, dtype=torch.int64)
            winner = torch.empty(x.shape, dtype=torch.uint8)
            yield partial(forward, x, neighbors, reduce, True)
            yield partial(backward, x, neighbors, winner, reduce)
