"""Attention between the tokens of every pair of nodes, pooled over the querying tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel_kernels.launch import launch
from aurel_kernels.sizes import power_of_two

PRECISION = tl.constexpr("ieee")


@triton.jit
def matrix(ptr, o_row, o_col, rows: tl.constexpr, columns: tl.constexpr):
    """Return a tile of a matrix, zero where it ends."""
    return tl.load(
        ptr + o_row[:, None] * columns + o_col[None, :],
        mask=(o_row < rows)[:, None] & (o_col < columns)[None, :],
        other=0.0,
    )


@triton.jit
def attend(b_query, b_key, o_d, o_p, D):
    """Return softmax rows of query @ key, [query, key token], zero outside."""
    b_score = tl.dot(b_query, tl.trans(b_key), input_precision=PRECISION)
    b_score = tl.where((o_p < D)[None, :], b_score, -float("inf"))
    b_weight = tl.exp(b_score - tl.max(b_score, axis=1)[:, None])
    b_weight = b_weight / tl.sum(b_weight, axis=1)[:, None]
    return tl.where((o_d < D)[:, None], b_weight, 0.0)


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
):
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    # [BLOCK_D, BLOCK_E]
    b_key = matrix(key_ptr + i_target * D * E, o_p, o_e, D, E)
    for j in range(N):
        p_query = query_ptr + (i_batch * N + j) * D * E
        i_pair = i_target * N + j
        b_mean = tl.zeros((BLOCK_D,), tl.float32)
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            # [BLOCK_ROW, BLOCK_E]
            b_query = matrix(p_query, o_d, o_e, D, E)
            b_mean += tl.sum(attend(b_query, b_key, o_d, o_p, D), axis=0)
        b_mean = b_mean / D
        tl.store(mean_ptr + i_pair * D + o_p, b_mean, mask=o_p < D)
        if GRAM:
            b_square = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
            for d0 in range(0, D, BLOCK_ROW):
                o_d = d0 + tl.arange(0, BLOCK_ROW)
                b_query = matrix(p_query, o_d, o_e, D, E)
                b_attention = attend(b_query, b_key, o_d, o_p, D)
                b_deviation = tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)
                b_square = tl.dot(
                    tl.trans(b_deviation), b_deviation, b_square, input_precision=PRECISION
                )
            b_gram = matrix(gram_ptr + i_target * D * D, o_p, o_p, D, D)
            tl.store(scatter_ptr + i_pair, tl.sum(b_square * b_gram))


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
):
    """Own a target node: write the gradients of its keys and Gram matrix."""
    i_batch = tl.program_id(0).to(tl.int64)
    i_target = i_batch * N + tl.program_id(1)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    b_key = matrix(key_ptr + i_target * D * E, o_p, o_e, D, E)
    b_grad_key = tl.zeros((BLOCK_D, BLOCK_E), tl.float32)
    if GRAM:
        b_gram = matrix(gram_ptr + i_target * D * D, o_p, o_p, D, D)
        b_grad_gram = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
    blocks = (D + BLOCK_ROW - 1) // BLOCK_ROW
    for step in range(N * blocks):
        j = step // blocks
        o_d = (step % blocks) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
        i_pair = i_target * N + j
        b_query = matrix(query_ptr + (i_batch * N + j) * D * E, o_d, o_e, D, E)
        b_attention = attend(b_query, b_key, o_d, o_p, D)
        b_grad = tl.load(grad_mean_ptr + i_pair * D + o_p, mask=o_p < D, other=0.0)[None, :] / D
        if GRAM:
            b_mean = tl.load(mean_ptr + i_pair * D + o_p, mask=o_p < D, other=0.0)
            b_deviation = tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)
            b_weighted = b_deviation * tl.load(grad_scatter_ptr + i_pair)
            b_grad_gram = tl.dot(
                tl.trans(b_weighted), b_deviation, b_grad_gram, input_precision=PRECISION
            )
            b_grad = b_grad + tl.dot(b_weighted, b_gram, input_precision=PRECISION)
        b_grad = b_grad * b_attention
        b_grad = b_grad - b_attention * tl.sum(b_grad, axis=1)[:, None]
        b_grad_key = tl.dot(tl.trans(b_grad), b_query, b_grad_key, input_precision=PRECISION)
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
            mask=m_p & (o_p < D)[None, :],
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
):
    """Own a block of tokens of a source node: write the gradient of its queries."""
    i_batch = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1)
    o_d = tl.program_id(2) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_p = tl.arange(0, BLOCK_D)
    o_e = tl.arange(0, BLOCK_E)
    p_query = (i_batch * N + j) * D * E
    b_query = matrix(query_ptr + p_query, o_d, o_e, D, E)
    b_grad_query = tl.zeros((BLOCK_ROW, BLOCK_E), tl.float32)
    for i in range(N):
        i_target = i_batch * N + i
        i_pair = i_target * N + j
        b_key = matrix(key_ptr + i_target * D * E, o_p, o_e, D, E)
        b_attention = attend(b_query, b_key, o_d, o_p, D)
        b_grad = tl.load(grad_mean_ptr + i_pair * D + o_p, mask=o_p < D, other=0.0)[None, :] / D
        if GRAM:
            b_mean = tl.load(mean_ptr + i_pair * D + o_p, mask=o_p < D, other=0.0)
            b_deviation = tl.where((o_d < D)[:, None], b_attention - b_mean[None, :], 0.0)
            b_weighted = b_deviation * tl.load(grad_scatter_ptr + i_pair)
            b_gram = matrix(gram_ptr + i_target * D * D, o_p, o_p, D, D)
            b_grad = b_grad + tl.dot(b_weighted, b_gram, input_precision=PRECISION)
        b_grad = b_grad * b_attention
        b_grad = b_grad - b_attention * tl.sum(b_grad, axis=1)[:, None]
        b_grad_query = tl.dot(b_grad, b_key, b_grad_query, input_precision=PRECISION)
    tl.store(
        grad_query_ptr + p_query + o_d[:, None] * E + o_e[None, :],
        b_grad_query,
        mask=(o_d < D)[:, None] & (o_e < E)[None, :],
    )


def plan(tokens: int, width: int) -> dict[str, Any]:
    return {
        "BLOCK_D": power_of_two(tokens),
        "BLOCK_E": power_of_two(width),
        "num_warps": 8,
        "BLOCK_ROW": 16,
        "num_stages": 1,
    }


def forward(query: Tensor, key: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    query, key = query.contiguous(), key.contiguous()
    batch, nodes, tokens, width = query.shape
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
        tokens,
        width,
        GRAM=gram is not None,
        **plan(tokens, width),
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
    given = [
        tensor.contiguous()
        for tensor in (
            grad_mean,
            grad_scatter,
            mean,
            query,
            key,
            key if gram is None else gram + gram.mT,
        )
    ]
    batch, nodes, tokens, width = query.shape
    grad_query, grad_key = query.new_empty(query.shape), key.new_empty(key.shape)
    grad_gram = query.new_empty((0,) if gram is None else gram.shape)
    sizes = (nodes, tokens, width)
    options = plan(tokens, width) | {"GRAM": gram is not None}
    launch(target_kernel, (batch, nodes), *given, grad_key, grad_gram, *sizes, **options)
    grid = (batch, nodes, triton.cdiv(tokens, 16))
    launch(source_kernel, grid, *given, grad_query, *sizes, **options)
    return grad_query, grad_key, grad_gram


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls that cover the table of `plan`, on CPU tensors, to be compiled."""
    for tokens, width, scattered in ((49, 49, True), (64, 64, True), (49, 64, False)):
        query = torch.empty(2, 3, tokens, width)
        gram = query.new_empty(2, 3, tokens, tokens) if scattered else None
        yield partial(forward, query, query, gram)
        mean = query.new_empty(2, 3, 3, tokens)
        yield partial(backward, mean, mean[..., 0], mean, query, query, gram)
