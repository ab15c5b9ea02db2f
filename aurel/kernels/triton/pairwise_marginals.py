"""Sums over the 2^N states of N binary nodes, in the log domain and in float32.

A state is the pair of a state a of the first N // 2 nodes and a state b of the others; bit i of its
number a + 2^(N // 2) b is node i. Its energy is that of the fields of either half and of the
couplings: E = low(a) + high(b) + table(a, b). A first kernel writes the table, which all samples
read.

Forward: a program owns a sample and walks over tiles of all a and some b, each state read once.
It keeps a running maximum and sum for each a and, of the sums over a, for each node of the upper
half that is 1, and that is 0. Z and the logits of the marginals are sums of these.

Backward: with the gradients g of the logits L = log Z1 - log Z0 and g_F of log Z, the weight of a
state is
    r = exp(E - log Z) g_F + sum_i +-g_i exp(E - log Z1_i or log Z0_i),
where the sign, and which, follow bit i. The terms of either half share a scale, so that a state
takes two exponentials and none overflows. A program owns some samples and a tile of states: the
gradient of a logit is the sum of r over states with its bit, one part for each tile; those of
couplings need the sum of r over samples, one part for each group of samples. Torch adds the parts,
and a last kernel sums over states with two bits. No atomics.

A logit of -inf makes a node absent: its L is 0 and its gradients are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import cdiv, launch
from aurel.kernels.triton.sizes import power_of_two

TILE = 4096  # states of a tile
PROGRAMS = 512  # of the backward kernel, about


@triton.jit
def log_add(b_max, b_sum, b_value, axis: tl.constexpr):
    """Add exponentials along `axis` to a running maximum and the sum in units of it."""
    b_new = tl.maximum(b_max, tl.max(b_value, axis))
    b_safe = tl.where(b_new == -float("inf"), 0.0, b_new)
    b_part = tl.sum(tl.exp(b_value - tl.expand_dims(b_safe, axis)), axis)
    return b_new, b_sum * tl.exp(b_max - b_safe) + b_part


@triton.jit
def log_of(b_max, b_sum):
    """Return the logarithm of a running sum, -inf for one of nothing."""
    return tl.where(b_max == -float("inf"), 0.0, b_max) + tl.log(b_sum)


@triton.jit
def sum_of_fields(logit_ptr, o_state, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Return the sum of the fields of the nodes that are 1."""
    b_energy = tl.zeros((BLOCK,), tl.float32)
    for i in range(COUNT):
        b_energy += tl.where((o_state >> i) & 1 == 1, tl.load(logit_ptr + i), 0.0)
    return b_energy


@triton.jit
def table_kernel(coupling_ptr, table_ptr, N, STATES, BLOCK: tl.constexpr):
    """Write the energy of the couplings in some states."""
    o_state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_energy = tl.zeros((BLOCK,), tl.float32)
    for i in range(1, N):
        b_row = tl.zeros((BLOCK,), tl.float32)
        for j in range(i):
            coupling = tl.load(coupling_ptr + i * N + j) + tl.load(coupling_ptr + j * N + i)
            b_row += tl.where((o_state >> j) & 1 == 1, coupling, 0.0)
        b_energy += tl.where((o_state >> i) & 1 == 1, b_row, 0.0)
    tl.store(table_ptr + o_state, 0.5 * b_energy, mask=o_state < STATES)


@triton.jit
def forward_kernel(
    logit_ptr,
    table_ptr,
    partition_ptr,
    out_ptr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Own a sample."""
    i_sample = tl.program_id(0).to(tl.int64)
    logit_ptr += i_sample * (LOW + HIGH)
    out_ptr += i_sample * (LOW + HIGH)
    o_a, o_node = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_N)
    b_low = sum_of_fields(logit_ptr, o_a, LOW, BLOCK_A)
    nothing = -float("inf")
    b_max, b_sum = tl.full((BLOCK_A,), nothing, tl.float32), tl.zeros((BLOCK_A,), tl.float32)
    b_on_max, b_on = tl.full((BLOCK_N,), nothing, tl.float32), tl.zeros((BLOCK_N,), tl.float32)
    b_off_max, b_off = tl.full((BLOCK_N,), nothing, tl.float32), tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, 1 << HIGH, BLOCK_B):
        o_b = start + tl.arange(0, BLOCK_B)
        b_high = sum_of_fields(logit_ptr + LOW, o_b, HIGH, BLOCK_B)
        b_table = tl.load(table_ptr + o_b[:, None] * BLOCK_A + o_a[None, :])
        b_energy = b_low[None, :] + b_high[:, None] + b_table
        b_max, b_sum = log_add(b_max, b_sum, b_energy, 0)
        b_none = tl.full((BLOCK_B,), nothing, tl.float32)
        b_row_max, b_row = log_add(b_none, tl.zeros((BLOCK_B,), tl.float32), b_energy, 1)
        b_row = log_of(b_row_max, b_row)[None, :]
        m_on = (o_b[None, :] >> o_node[:, None]) & 1 == 1
        b_on_max, b_on = log_add(b_on_max, b_on, tl.where(m_on, b_row, nothing), 1)
        b_off_max, b_off = log_add(b_off_max, b_off, tl.where(m_on, nothing, b_row), 1)
    b_total = log_of(b_max, b_sum)
    top = tl.max(b_total, 0)
    tl.store(partition_ptr + i_sample, top + tl.log(tl.sum(tl.exp(b_total - top), 0)))
    m_high = o_node < HIGH
    b_given = tl.load(logit_ptr + LOW + o_node, mask=m_high, other=0.0)
    b_logit = log_of(b_on_max, b_on) - log_of(b_off_max, b_off)
    tl.store(out_ptr + LOW + o_node, tl.where(b_given == nothing, 0.0, b_logit), mask=m_high)
    b_total = b_total[None, :]
    m_on = (o_a[None, :] >> o_node[:, None]) & 1 == 1
    b_none, b_zero = tl.full((BLOCK_N,), nothing, tl.float32), tl.zeros((BLOCK_N,), tl.float32)
    b_on_max, b_on = log_add(b_none, b_zero, tl.where(m_on, b_total, nothing), 1)
    b_off_max, b_off = log_add(b_none, b_zero, tl.where(m_on, nothing, b_total), 1)
    m_low = o_node < LOW
    b_given = tl.load(logit_ptr + o_node, mask=m_low, other=0.0)
    b_logit = log_of(b_on_max, b_on) - log_of(b_off_max, b_off)
    tl.store(out_ptr + o_node, tl.where(b_given == nothing, 0.0, b_logit), mask=m_low)


@triton.jit
def scores(b_scale, b_score, logit_ptr, marginal_ptr, grad_ptr, o_state, COUNT: tl.constexpr):
    """Add +-g_i / p_i or / (1 - p_i) for the bits of states of one half.

    The sum is `b_score` times the exponential of `b_scale`.
    """
    for i in range(COUNT):
        logit, grad = tl.load(marginal_ptr + i), tl.load(grad_ptr + i)
        grad = tl.where(tl.load(logit_ptr + i) == -float("inf"), 0.0, grad)
        rest = tl.log(1.0 + tl.exp(-tl.abs(logit)))  # -log p of the likelier value
        m_on = (o_state >> i) & 1 == 1
        b_new = rest + tl.maximum(tl.where(m_on, -logit, logit), 0.0)
        b_top = tl.maximum(b_scale, b_new)
        b_score = b_score * tl.exp(b_scale - b_top)
        b_score += tl.where(m_on, grad, -grad) * tl.exp(b_new - b_top)
        b_scale = b_top
    return b_scale, b_score


@triton.jit
def store_sums(out_ptr, b_weight, o_state, COUNT: tl.constexpr):
    """Store for each node the sum of the weights of the states in which it is 1."""
    for i in range(COUNT):
        tl.store(out_ptr + i, tl.sum(tl.where((o_state >> i) & 1 == 1, b_weight, 0.0), 0))


@triton.jit
def backward_kernel(
    grad_partition_ptr,
    grad_ptr,
    partition_ptr,
    marginal_ptr,
    logit_ptr,
    table_ptr,
    part_ptr,
    weight_ptr,
    B,
    GROUP,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Own a group of samples and a tile of states."""
    i_group, i_tile = tl.program_id(0), tl.program_id(1)
    o_a, o_b = tl.arange(0, BLOCK_A), i_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    p_tile = o_b[:, None] * BLOCK_A + o_a[None, :]
    b_table = tl.load(table_ptr + p_tile)
    b_weights = tl.zeros((BLOCK_B, BLOCK_A), tl.float32)
    N = LOW + HIGH
    for i_sample in range(i_group * GROUP, tl.minimum(i_group * GROUP + GROUP, B)):
        at = i_sample * N
        b_low = sum_of_fields(logit_ptr + at, o_a, LOW, BLOCK_A)
        b_high = sum_of_fields(logit_ptr + at + LOW, o_b, HIGH, BLOCK_B)
        b_energy = b_low[None, :] + b_high[:, None] + b_table
        b_energy -= tl.load(partition_ptr + i_sample)
        b_low_scale = tl.zeros((BLOCK_A,), tl.float32)
        b_low_score = b_low_scale + tl.load(grad_partition_ptr + i_sample)
        b_low_scale, b_low_score = scores(
            b_low_scale, b_low_score, logit_ptr + at, marginal_ptr + at, grad_ptr + at, o_a, LOW
        )
        b_high_scale = tl.zeros((BLOCK_B,), tl.float32)
        b_high_scale, b_high_score = scores(
            b_high_scale,
            tl.zeros((BLOCK_B,), tl.float32),
            logit_ptr + at + LOW,
            marginal_ptr + at + LOW,
            grad_ptr + at + LOW,
            o_b,
            HIGH,
        )
        b_weight = b_low_score[None, :] * tl.exp(b_energy + b_low_scale[None, :])
        b_weight += b_high_score[:, None] * tl.exp(b_energy + b_high_scale[:, None])
        b_weights += b_weight
        p_part = part_ptr + (i_tile.to(tl.int64) * B + i_sample) * N
        store_sums(p_part, tl.sum(b_weight, 0), o_a, LOW)
        store_sums(p_part + LOW, tl.sum(b_weight, 1), o_b, HIGH)
    weight_ptr += i_group.to(tl.int64) * (BLOCK_A << HIGH)
    tl.store(weight_ptr + p_tile, b_weights)


@triton.jit
def moment_kernel(weight_ptr, out_ptr, N, STATES, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr):
    """Own a node i: half of the sum of the weights of states in which i and j are 1, for all j."""
    i_node = tl.program_id(0)
    o_node = tl.arange(0, BLOCK_N)
    b_out = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, STATES, BLOCK):
        o_state = start + tl.arange(0, BLOCK)
        m_state = (o_state < STATES) & ((o_state >> i_node) & 1 == 1)
        b_weight = tl.load(weight_ptr + o_state, mask=m_state, other=0.0)
        m_both = (o_state[None, :] >> o_node[:, None]) & 1 == 1
        b_out += tl.sum(tl.where(m_both, b_weight[None, :], 0.0), 1)
    b_out = tl.where(o_node == i_node, 0.0, 0.5 * b_out)
    tl.store(out_ptr + i_node * N + o_node, b_out, mask=o_node < N)


def plan(nodes: int) -> dict[str, Any]:
    """Return the sizes of both halves and of a tile, and its warps."""
    low, high = nodes // 2, nodes - nodes // 2
    block_b = min(1 << high, max(1, TILE >> low))
    warps = max(1, min(8, (block_b << low) // 512))
    return {
        "LOW": low,
        "HIGH": high,
        "BLOCK_A": 1 << low,
        "BLOCK_B": block_b,
        "num_warps": warps,
    }


def _table(couplings: Tensor) -> Tensor:
    """Return the energies of the couplings in all states, (2^N,)."""
    nodes = couplings.shape[0]
    table = couplings.new_empty(1 << nodes)
    grid = (cdiv(table.numel(), 256),)
    launch(table_kernel, grid, couplings, table, nodes, table.numel(), BLOCK=256, num_warps=2)
    return table


def forward(
    logits: Tensor, couplings: Tensor, mask: Tensor | None, pairs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log Z (B,), the logits of the marginals (B, N) and an empty tensor.

    Args:
        logits: (B, N) float32.
        couplings: (N, N) float32.
        mask: (B, N) bool, True where the node exists, or None.
        pairs: not served.
    """
    assert not pairs
    logits = _present(logits, mask)
    partition, out = logits.new_empty(len(logits)), torch.empty_like(logits)
    options = plan(logits.shape[1])
    table = _table(couplings.contiguous())
    block_n = power_of_two(options["HIGH"], 2)
    launch(
        forward_kernel, (len(logits),), logits, table, partition, out, BLOCK_N=block_n, **options
    )
    return partition, out, logits.new_empty(0)


def backward(
    grad_partition: Tensor,
    grad_logits: Tensor,
    grad_pairs: Tensor,
    log_partition: Tensor,
    marginal_logits: Tensor,
    pair_marginals: Tensor,
    logits: Tensor,
    couplings: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of logits (B, N) and couplings (N, N); pairs are not served."""
    logits = _present(logits, mask)
    batch, nodes = logits.shape
    options = plan(nodes)
    table = _table(couplings.contiguous())
    tiles = (1 << options["HIGH"]) // options["BLOCK_B"]
    group = max(1, cdiv(batch * tiles, PROGRAMS))
    groups = cdiv(batch, group)
    parts = logits.new_empty(tiles, batch, nodes)
    weights = logits.new_empty(groups, 1 << nodes)
    launch(
        backward_kernel,
        (groups, tiles),
        grad_partition.contiguous(),
        grad_logits.contiguous(),
        log_partition,
        marginal_logits,
        logits,
        table,
        parts,
        weights,
        batch,
        group,
        **options,
    )
    total = weights.sum(0)
    moments = torch.empty_like(couplings, memory_format=torch.contiguous_format)
    block_n = power_of_two(nodes, 2)
    launch(
        moment_kernel,
        (nodes,),
        total,
        moments,
        nodes,
        total.numel(),
        BLOCK=2048 // block_n,
        BLOCK_N=block_n,
        num_warps=4,
    )
    return parts[0] if tiles == 1 else parts.sum(0), moments


def _present(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits.contiguous() if mask is None else logits.masked_fill(~mask, -torch.inf)


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the plans, on CPU tensors, to be compiled."""
    for nodes in (1, 8, 12, 15, 20):
        logits, couplings = torch.empty(2, nodes), torch.empty(nodes, nodes)
        sums, nothing = torch.empty(2), torch.empty(0)
        yield partial(forward, logits, couplings, None, False)
        outputs = (sums, logits, nothing)
        yield partial(backward, *outputs, *outputs, logits, couplings, None)
