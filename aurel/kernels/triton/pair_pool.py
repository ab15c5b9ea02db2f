"""Attention between the tokens of every pair of nodes, pooled over the querying tokens.

Forward, for queries L and keys R (B, N, D, E), Gram matrices G (B, N, D, D) or none, target i and
source j, with a_d the D rows of A_ij = softmax(L_j R_i^T):
    w_ij = sum_d a_d / D, s_ij = sum_d (a_d - w_ij) G_i (a_d - w_ij)^T,
written to mean (B, N, N, D) and scatter (B, N, N). Rows come sixteen at a time, before their mean
is known, so deviations are taken from c, the mean of the first sixteen, and corrected:
    s_ij = sum_d (a_d - c) G_i (a_d - c)^T - D (w_ij - c) G_i (w_ij - c)^T.
c lies among the rows: what is taken away is never large against what is left.

Backward, from v = dL/dw and u = dL/ds, with X the rows a_d - w_ij:
    dA = v / D + u X (G_i + G_i^T), dS = A * (dA - rowsum(A * dA)),
    dL_j = sum_i dS R_i, dR_i = sum_j dS^T L_j, dG_i = sum_j u X^T X.
One kernel owns targets (dR, dG), one owns sixteen tokens of a source (dL), so no atomics are needed
and every run gives the same bits. A is computed again; mean is all that the forward saves.

Nothing of size D^2 a pair reaches memory. All is float32, products as PRECISION says. One launch
forward and two backward, for up to WHOLE_PAIR tokens; `pair_pool_large` serves more. E is cut into
strips of WHOLE_PAIR, whose gradients belong to programs of their own that all compute the scores. D
and E are compile-time constants: addresses of ragged rows then cost no registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton import pair_pool_large
from aurel.kernels.triton.launch import launch
from aurel.kernels.triton.pair_tiles import matrix_tile, score_tile, square_tile
from aurel.kernels.triton.precision import wide_products
from aurel.kernels.triton.sizes import WHOLE_PAIR, power_of_two


@triton.jit
def attend(
    b_query,
    b_key,
    query_ptr,
    key_ptr,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return rows o_d of the attention, zero outside; the tiles will do where E is one strip."""
    if E <= BLOCK_E:
        b_score = tl.dot(b_query, tl.trans(b_key), input_precision=PRECISION)
    else:
        b_score = score_tile(query_ptr, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
    b_score = tl.where((o_p < D)[None, :], b_score, -float("inf"))
    b_weight = tl.exp(b_score - tl.max(b_score, axis=1)[:, None])
    b_weight = b_weight / tl.sum(b_weight, axis=1)[:, None]
    return tl.where((o_d < D)[:, None], b_weight, 0.0)


@triton.jit
def score_gradient(
    b_attention,
    b_gram,
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    o_d,
    o_p,
    D: tl.constexpr,
    GRAM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return rows of dS and X of one pair; b_gram is G + G^T."""
    b_mean = tl.load(mean_ptr + o_p, mask=o_p < D, other=0.0)
    b_deviation = tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)
    b_grad = tl.load(grad_mean_ptr + o_p, mask=o_p < D, other=0.0)[None, :] / D
    if GRAM:
        b_weighted = b_deviation * tl.load(grad_scatter_ptr)
        b_grad = b_grad + tl.dot(b_weighted, b_gram, input_precision=PRECISION)
    b_grad = b_grad * b_attention
    return b_grad - b_attention * tl.sum(b_grad, axis=1)[:, None], b_deviation


@triton.jit
def forward_kernel(
    query_ptr,
    key_ptr,
    gram_ptr,
    mean_ptr,
    scatter_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a target node."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    key_ptr += i_target * D * E
    b_key = matrix_tile(key_ptr, o_p, o_e, D, E)
    if GRAM:
        b_gram = matrix_tile(gram_ptr + i_target * D * D, o_p, o_p, D, D)
    for j in range(N):
        p_query = query_ptr + (i_batch * N + j) * D * E
        b_sum = tl.zeros((BLOCK_D,), tl.float32)
        b_shift = tl.zeros((BLOCK_D,), tl.float32)
        b_scatter = tl.zeros((BLOCK_ROW, BLOCK_D), tl.float32)
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            b_query = matrix_tile(p_query, o_d, o_e, D, E)
            # [BLOCK_ROW, BLOCK_D]
            b_attention = attend(
                b_query, b_key, p_query, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_sum += tl.sum(b_attention, axis=0)
            if GRAM:
                b_shift = tl.where(d0 == 0, b_sum / min(BLOCK_ROW, D), b_shift)
                b_deviation = tl.where((o_d < D)[:, None], b_attention - b_shift[None, :], 0.0)
                b_scatter += b_deviation * tl.dot(b_deviation, b_gram, input_precision=PRECISION)
        i_pair = i_target * N + j
        b_mean = b_sum / D
        tl.store(mean_ptr + i_pair * D + o_p, b_mean, mask=o_p < D)
        if GRAM:
            scatter = tl.sum(b_scatter)
            if BLOCK_ROW < D:
                b_shift = b_mean - b_shift
                scatter -= D * tl.sum(b_shift[:, None] * b_gram * b_shift[None, :])
            tl.store(scatter_ptr + i_pair, scatter)


@triton.jit
def target_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    gram_ptr,
    grad_key_ptr,
    grad_gram_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a target node and a strip of E; the first strip's program also writes dG."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    key_ptr += i_target * D * E
    b_key = matrix_tile(key_ptr, o_p, o_e, D, E)
    b_gram = square_tile(gram_ptr, i_target, BLOCK_D) if GRAM else b_key
    b_grad_key = tl.zeros((BLOCK_D, BLOCK_E), tl.float32)
    b_grad_gram = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
    blocks = tl.cdiv(D, BLOCK_ROW)
    for step in range(N * blocks):
        j = step // blocks
        o_d = (step % blocks) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
        i_pair = i_target * N + j
        p_query = query_ptr + (i_batch * N + j) * D * E
        b_query = matrix_tile(p_query, o_d, o_e, D, E)
        b_attention = attend(b_query, b_key, p_query, key_ptr, o_d, o_p, D, E, BLOCK_E, PRECISION)
        b_grad, b_deviation = score_gradient(
            b_attention,
            b_gram,
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            o_d,
            o_p,
            D,
            GRAM,
            PRECISION,
        )
        b_grad_key = tl.dot(tl.trans(b_grad), b_query, b_grad_key, input_precision=PRECISION)
        if GRAM:
            b_weighted = tl.trans(b_deviation * tl.load(grad_scatter_ptr + i_pair))
            b_grad_gram = tl.dot(b_weighted, b_deviation, b_grad_gram, input_precision=PRECISION)
    m_p = (o_p < D)[:, None]
    tl.store(
        grad_key_ptr + i_target * D * E + o_p[:, None] * E + o_e[None, :],
        b_grad_key,
        mask=m_p & (o_e < E)[None, :],
    )
    if GRAM:
        tl.store(
            grad_gram_ptr + i_target * D * D + o_p[:, None] * D + o_p[None, :],
            b_grad_gram,
            mask=m_p & (o_p < D)[None, :] & (tl.program_id(2) == 0),
        )


@triton.jit
def source_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    gram_ptr,
    grad_query_ptr,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own BLOCK_ROW tokens of a source node and a strip of E."""
    blocks = tl.cdiv(D, BLOCK_ROW)
    i_batch = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) // blocks
    o_d = (tl.program_id(1) % blocks) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    query_ptr += (i_batch * N + j) * D * E
    b_query = matrix_tile(query_ptr, o_d, o_e, D, E)
    b_grad_query = tl.zeros((BLOCK_ROW, BLOCK_E), tl.float32)
    for i in range(N):
        i_target = i_batch * N + i
        i_pair = i_target * N + j
        p_key = key_ptr + i_target * D * E
        b_key = matrix_tile(p_key, o_p, o_e, D, E)
        b_gram = square_tile(gram_ptr, i_target, BLOCK_D) if GRAM else b_key
        b_attention = attend(b_query, b_key, query_ptr, p_key, o_d, o_p, D, E, BLOCK_E, PRECISION)
        b_grad, _ = score_gradient(
            b_attention,
            b_gram,
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            o_d,
            o_p,
            D,
            GRAM,
            PRECISION,
        )
        b_grad_query = tl.dot(b_grad, b_key, b_grad_query, input_precision=PRECISION)
    tl.store(
        grad_query_ptr + (i_batch * N + j) * D * E + o_d[:, None] * E + o_e[None, :],
        b_grad_query,
        mask=(o_d < D)[:, None] & (o_e < E)[None, :],
    )


def plan(tokens: int, width: int, block_row: int, num_warps: int) -> dict[str, Any]:
    """Return the launch options, with as many rows at a time as do not spill.

    The arguments hold where products are wide; elsewhere rows come in sixteens.
    """
    block_d = power_of_two(tokens)
    wide = wide_products()
    return {
        "BLOCK_ROW": min(block_d, block_row) if wide else 16,
        "BLOCK_D": block_d,
        "BLOCK_E": min(WHOLE_PAIR, power_of_two(width)),
        "PRECISION": "tf32x3" if wide else "ieee",
        "num_warps": num_warps,
        "num_stages": 1,
    }


def forward(query: Tensor, key: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean (B, N, N, D) and scatter (B, N, N), which is empty without `gram`.

    Args:
        query: (B, N, D, E), float32.
        key: (B, N, D, E), float32.
        gram: (B, N, D, D), float32, or None.
    """
    batch, nodes, tokens, width = query.shape
    if tokens > WHOLE_PAIR:
        return pair_pool_large.forward(query, key, gram)
    query, key = query.contiguous(), key.contiguous()
    mean = query.new_empty((batch, nodes, nodes, tokens))
    scatter = query.new_empty((0,) if gram is None else (batch, nodes, nodes))
    launch(
        forward_kernel,
        (batch, nodes),
        query,
        key,
        key if gram is None else gram.contiguous(),
        mean,
        scatter,
        nodes,
        D=tokens,
        E=width,
        GRAM=gram is not None,
        **plan(tokens, width, block_row=64 if width <= WHOLE_PAIR else 16, num_warps=4),
    )
    return mean, scatter


def backward(
    grad_mean: Tensor,
    grad_scatter: Tensor,
    mean: Tensor,
    query: Tensor,
    key: Tensor,
    gram: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and gram, the last one empty without `gram`.

    Args:
        grad_mean: (B, N, N, D), float32, like the rest.
        grad_scatter: (B, N, N), unread without `gram`.
        mean: (B, N, N, D), of `forward`.
        query: (B, N, D, E).
        key: (B, N, D, E).
        gram: (B, N, D, D) or None.
    """
    batch, nodes, tokens, width = query.shape
    if tokens > WHOLE_PAIR:
        return pair_pool_large.backward(grad_mean, grad_scatter, mean, query, key, gram)
    of_targets = plan(tokens, width, block_row=16, num_warps=4)
    of_sources = plan(tokens, width, block_row=32, num_warps=8)
    both = key
    if gram is not None:
        # Read for every pair, and faster without ragged rows.
        both = gram.new_zeros((batch, nodes, *[of_targets["BLOCK_D"]] * 2))
        torch.add(gram, gram.mT, out=both[..., :tokens, :tokens])
    inputs = [tensor.contiguous() for tensor in (grad_mean, grad_scatter, mean, query, key, both)]
    grad_query, grad_key = query.new_empty(query.shape), key.new_empty(key.shape)
    grad_gram = query.new_empty((0,) if gram is None else gram.shape)
    sizes = {"D": tokens, "E": width, "GRAM": gram is not None}
    strips = triton.cdiv(width, of_targets["BLOCK_E"])
    launch(
        target_kernel,
        (batch, nodes, strips),
        *inputs,
        grad_key,
        grad_gram,
        nodes,
        **sizes,
        **of_targets,
    )
    launch(
        source_kernel,
        (batch, nodes * triton.cdiv(tokens, of_sources["BLOCK_ROW"]), strips),
        *inputs,
        grad_query,
        nodes,
        **sizes,
        **of_sources,
    )
    return grad_query, grad_key, grad_gram


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the table of `plan`, on CPU tensors, to be compiled."""
    for tokens, width, scattered in (
        (49, 49, True),
        (64, 64, True),
        (25, 25, True),
        (17, 1, True),
        (16, 16, True),
        (49, 70, True),
        (49, 256, False),
    ):
        query = torch.empty(2, 3, tokens, width)
        gram = query.new_empty(2, 3, tokens, tokens) if scattered else None
        mean = query.new_empty(2, 3, 3, tokens)
        yield partial(forward, query, query, gram)
        yield partial(backward, mean, mean[..., 0], mean, query, query, gram)
