"""Edges of many graphs, sorted by source.

Small graphs are sorted by one program each; larger ones by torch, with keys of 16 bits.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import PLANS, Launch
from aurel.kernels.triton.sizes import WHOLE_GRAPH, power_of_two

MOST_EDGES = 1_024  # most edges that a program sorts


@triton.jit
def sort_kernel(
    neighbor_ptr,
    first_ptr,
    edge_ptr,
    M,
    E,
    BLOCK_M: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Sort E edges of one graph by (source, edge), and find where those of each source start."""
    i_batch = tl.program_id(0).to(tl.int64)
    o_e = tl.arange(0, BLOCK_E)
    o_m = tl.arange(0, BLOCK_M)
    b_j = tl.load(neighbor_ptr + i_batch * E + o_e, mask=o_e < E, other=-1)
    # empty slots are sorted behind the last node
    b_j = tl.where((b_j >= 0) & (b_j < M), b_j, M).to(tl.int32)
    b_key = tl.sort(b_j * BLOCK_E + o_e)
    tl.store(edge_ptr + i_batch * E + o_e, b_key % BLOCK_E, mask=o_e < E)
    b_before = (b_key // BLOCK_E)[None, :] < o_m[:, None]
    b_first = tl.sum(b_before.to(tl.int32), axis=1)
    tl.store(first_ptr + i_batch * (M + 1) + o_m, b_first, mask=o_m <= M)


def reversed_edges(neighbors: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the edges of each graph, sorted by source.

    Args:
        neighbors: (B, N, K) int64, contiguous; indices outside 0..M-1 are empty slots.
        nodes: M.

    Returns:
        first (B, M + 1): where the edges of each source start; edges (B, N * K): i * K + slot for
        target i, ascending for each source.
    """
    batch, targets, k = neighbors.shape
    edges = targets * k
    if nodes <= WHOLE_GRAPH and edges <= MOST_EDGES:
        first = neighbors.new_empty((batch, nodes + 1), dtype=torch.int32)
        order = neighbors.new_empty((batch, edges), dtype=torch.int32)
        plan(batch, nodes, edges)(neighbors, first, order)
        return first, order
    source = neighbors.flatten(1)
    kind = torch.int16 if nodes < 2**15 else torch.int32
    source = source.where((source >= 0) & (source < nodes), nodes).to(kind)
    source, order = source.sort(dim=1, stable=True)
    bounds = torch.arange(nodes + 1, device=source.device, dtype=kind)
    first = torch.searchsorted(source, bounds.expand(batch, -1).contiguous(), out_int32=True)
    return first, order


@lru_cache(PLANS)
def plan(batch: int, nodes: int, edges: int) -> Launch:
    """Return the launch for these sizes."""
    return Launch(
        sort_kernel,
        (batch,),
        (nodes, edges),
        BLOCK_M=power_of_two(nodes + 1),
        BLOCK_E=power_of_two(edges),
        num_warps=4,
    )
