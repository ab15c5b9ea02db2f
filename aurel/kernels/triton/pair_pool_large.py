"""`pair_pool` of more tokens than fit into a tile: the equations are those of that module.

Attention is made tile by tile, again in every kernel, from two numbers a row: its largest score
and its sum of exponentials. A third pass over the columns of X is the price of never holding a row:
X G is a sum over tiles of X.

Forward, two launches, three with Gram matrices: the statistics (B, N, N, D), by rows; then the mean
over rows, by columns; then, deviations being known now, the scatter, by pairs.

Backward, three launches, four with Gram matrices: the statistics and rowsum(A * dA), by rows; dR;
dL; dG. A program owns what it writes and adds up in a fixed order, without atomics: each run gives
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurel.kernels.triton.launch import launch
from aurel.kernels.triton.pair_tiles import (
    attention_tile,
    deviation_tile,
    matrix_tile,
    row_statistics,
)
from aurel.kernels.triton.precision import wide_products
from aurel.kernels.triton.sizes import power_of_two


@triton.jit
def pair_of(i_pair, N):
    """Return where target and source of a pair stand among all nodes."""
    i_target = i_pair // N
    return i_target, i_target // N * N + i_pair % N


@triton.jit
def load_statistics(statistic_ptr, statistic_stride, o_d, D: tl.constexpr):
    """Return largest score and sum of exponentials of the rows o_d of one pair."""
    b_max = tl.load(statistic_ptr + o_d, mask=o_d < D, other=0.0)
    b_sum = tl.load(statistic_ptr + statistic_stride + o_d, mask=o_d < D, other=1.0)
    return b_max, b_sum


@triton.jit
def mixed_tile(
    query_ptr,
    key_ptr,
    matrix_ptr,
    mean_ptr,
    b_max,
    b_sum,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of X times a matrix (D, D)."""
    b_mixed = tl.zeros((o_d.shape[0], o_p.shape[0]), tl.float32)
    for q0 in range(0, D, BLOCK_D):
        o_q = q0 + tl.arange(0, BLOCK_D)
        b_attention = attention_tile(
            query_ptr, key_ptr, b_max, b_sum, o_d, o_q, D, E, BLOCK_E, PRECISION
        )
        b_deviation = deviation_tile(b_attention, mean_ptr, o_d, o_q, D)
        b_matrix = matrix_tile(matrix_ptr, o_q, o_p, D, D)
        b_mixed = tl.dot(b_deviation, b_matrix, b_mixed, input_precision=PRECISION)
    return b_mixed


@triton.jit
def gradient_tile(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    both_ptr,
    b_max,
    b_sum,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return tiles of A and of dA of one pair."""
    b_grad = tl.load(grad_mean_ptr + o_p, mask=o_p < D, other=0.0)[None, :] / D
    if GRAM:
        b_mixed = mixed_tile(
            query_ptr,
            key_ptr,
            both_ptr,
            mean_ptr,
            b_max,
            b_sum,
            o_d,
            o_p,
            D,
            E,
            BLOCK_D,
            BLOCK_E,
            PRECISION,
        )
        b_grad = b_grad + tl.load(grad_scatter_ptr) * b_mixed
    return attention_tile(
        query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
    ), b_grad


@triton.jit
def statistic_kernel(
    query_ptr,
    key_ptr,
    statistic_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own rows of one pair: write their statistics."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    b_max, b_sum = row_statistics(
        query_ptr + i_source * D * E,
        key_ptr + i_target * D * E,
        o_d,
        D,
        E,
        BLOCK_D,
        BLOCK_E,
        PRECISION,
    )
    p_statistic = statistic_ptr + i_pair * D + o_d
    tl.store(p_statistic, b_max, mask=o_d < D)
    tl.store(p_statistic + statistic_stride, b_sum, mask=o_d < D)


@triton.jit
def mean_kernel(
    query_ptr,
    key_ptr,
    statistic_ptr,
    mean_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own columns of one pair."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    statistic_ptr += i_pair * D
    b_sum_rows = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_ROW):
        o_d = d0 + tl.arange(0, BLOCK_ROW)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
        b_attention = attention_tile(
            query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
        )
        b_sum_rows += tl.sum(b_attention, axis=0)
    tl.store(mean_ptr + i_pair * D + o_p, b_sum_rows / D, mask=o_p < D)


@triton.jit
def scatter_kernel(
    query_ptr,
    key_ptr,
    gram_ptr,
    statistic_ptr,
    mean_ptr,
    scatter_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own one pair."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    gram_ptr += i_target * D * D
    statistic_ptr += i_pair * D
    mean_ptr += i_pair * D
    b_scatter = tl.zeros((BLOCK_ROW, BLOCK_D), tl.float32)
    for d0 in range(0, D, BLOCK_ROW):
        o_d = d0 + tl.arange(0, BLOCK_ROW)
        b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
        for p0 in range(0, D, BLOCK_D):
            o_p = p0 + tl.arange(0, BLOCK_D)
            # [BLOCK_ROW, BLOCK_D]
            b_mixed = mixed_tile(
                query_ptr,
                key_ptr,
                gram_ptr,
                mean_ptr,
                b_max,
                b_sum,
                o_d,
                o_p,
                D,
                E,
                BLOCK_D,
                BLOCK_E,
                PRECISION,
            )
            b_attention = attention_tile(
                query_ptr, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_scatter += b_mixed * deviation_tile(b_attention, mean_ptr, o_d, o_p, D)
    tl.store(scatter_ptr + i_pair, tl.sum(b_scatter))


@triton.jit
def row_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    both_ptr,
    statistic_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own rows of one pair: write their statistics and rowsum(A * dA) for the others."""
    i_pair = tl.program_id(0).to(tl.int64)
    i_target, i_source = pair_of(i_pair, N)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    query_ptr += i_source * D * E
    key_ptr += i_target * D * E
    b_max, b_sum = row_statistics(query_ptr, key_ptr, o_d, D, E, BLOCK_D, BLOCK_E, PRECISION)
    b_shared = tl.zeros((BLOCK_ROW,), tl.float32)
    for p0 in range(0, D, BLOCK_D):
        o_p = p0 + tl.arange(0, BLOCK_D)
        b_attention, b_grad = gradient_tile(
            grad_mean_ptr + i_pair * D,
            grad_scatter_ptr + i_pair,
            mean_ptr + i_pair * D,
            query_ptr,
            key_ptr,
            both_ptr + i_target * D * D,
            b_max,
            b_sum,
            o_d,
            o_p,
            D,
            E,
            GRAM,
            BLOCK_D,
            BLOCK_E,
            PRECISION,
        )
        b_shared += tl.sum(b_attention * b_grad, axis=1)
    p_statistic = statistic_ptr + i_pair * D + o_d
    tl.store(p_statistic, b_max, mask=o_d < D)
    tl.store(p_statistic + statistic_stride, b_sum, mask=o_d < D)
    # not 2 * stride, which may need more than the 32 bits that a stride fits into
    tl.store(p_statistic + statistic_stride + statistic_stride, b_shared, mask=o_d < D)


@triton.jit
def score_gradient(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    both_ptr,
    statistic_ptr,
    statistic_stride,
    i_target,
    i_source,
    i_pair,
    o_d,
    o_p,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile of dS of one pair."""
    statistic_ptr += i_pair * D
    b_max, b_sum = load_statistics(statistic_ptr, statistic_stride, o_d, D)
    b_shared = tl.load(
        statistic_ptr + statistic_stride + statistic_stride + o_d, mask=o_d < D, other=0.0
    )
    b_attention, b_grad = gradient_tile(
        grad_mean_ptr + i_pair * D,
        grad_scatter_ptr + i_pair,
        mean_ptr + i_pair * D,
        query_ptr + i_source * D * E,
        key_ptr + i_target * D * E,
        both_ptr + i_target * D * D,
        b_max,
        b_sum,
        o_d,
        o_p,
        D,
        E,
        GRAM,
        BLOCK_D,
        BLOCK_E,
        PRECISION,
    )
    return b_attention * (b_grad - b_shared[:, None])


@triton.jit
def target_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    both_ptr,
    statistic_ptr,
    grad_key_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own tokens of a target node and a strip of E: write dR."""
    i_target = tl.program_id(0).to(tl.int64)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    o_e = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    b_grad_key = tl.zeros((BLOCK_D, BLOCK_OUT), tl.float32)
    for j in range(N):
        i_source = i_target // N * N + j
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            # [BLOCK_ROW, BLOCK_D]
            b_grad = score_gradient(
                grad_mean_ptr,
                grad_scatter_ptr,
                mean_ptr,
                query_ptr,
                key_ptr,
                both_ptr,
                statistic_ptr,
                statistic_stride,
                i_target,
                i_source,
                i_target * N + j,
                o_d,
                o_p,
                D,
                E,
                GRAM,
                BLOCK_D,
                BLOCK_E,
                PRECISION,
            )
            b_query = matrix_tile(query_ptr + i_source * D * E, o_d, o_e, D, E)
            b_grad_key = tl.dot(tl.trans(b_grad), b_query, b_grad_key, input_precision=PRECISION)
    tl.store(
        grad_key_ptr + i_target * D * E + o_p[:, None] * E + o_e[None, :],
        b_grad_key,
        mask=(o_p < D)[:, None] & (o_e < E)[None, :],
    )


@triton.jit
def source_kernel(
    grad_mean_ptr,
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    both_ptr,
    statistic_ptr,
    grad_query_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    GRAM: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own tokens of a source node and a strip of E: write dL."""
    i_source = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BLOCK_ROW + tl.arange(0, BLOCK_ROW)
    o_e = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    b_grad_query = tl.zeros((BLOCK_ROW, BLOCK_OUT), tl.float32)
    for i in range(N):
        i_target = i_source // N * N + i
        for p0 in range(0, D, BLOCK_D):
            o_p = p0 + tl.arange(0, BLOCK_D)
            # [BLOCK_ROW, BLOCK_D]
            b_grad = score_gradient(
                grad_mean_ptr,
                grad_scatter_ptr,
                mean_ptr,
                query_ptr,
                key_ptr,
                both_ptr,
                statistic_ptr,
                statistic_stride,
                i_target,
                i_source,
                i_target * N + i_source % N,
                o_d,
                o_p,
                D,
                E,
                GRAM,
                BLOCK_D,
                BLOCK_E,
                PRECISION,
            )
            b_key = matrix_tile(key_ptr + i_target * D * E, o_p, o_e, D, E)
            b_grad_query = tl.dot(b_grad, b_key, b_grad_query, input_precision=PRECISION)
    tl.store(
        grad_query_ptr + i_source * D * E + o_d[:, None] * E + o_e[None, :],
        b_grad_query,
        mask=(o_d < D)[:, None] & (o_e < E)[None, :],
    )


@triton.jit
def gram_kernel(
    grad_scatter_ptr,
    mean_ptr,
    query_ptr,
    key_ptr,
    statistic_ptr,
    grad_gram_ptr,
    statistic_stride,
    N,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_ROW: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Own a tile of one target's dG."""
    i_target = tl.program_id(0).to(tl.int64)
    o_p = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    o_q = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    key_ptr += i_target * D * E
    b_out = tl.zeros((BLOCK_D, BLOCK_D), tl.float32)
    for j in range(N):
        i_pair = i_target * N + j
        p_query = query_ptr + (i_target // N * N + j) * D * E
        p_mean = mean_ptr + i_pair * D
        for d0 in range(0, D, BLOCK_ROW):
            o_d = d0 + tl.arange(0, BLOCK_ROW)
            b_max, b_sum = load_statistics(statistic_ptr + i_pair * D, statistic_stride, o_d, D)
            # [BLOCK_ROW, BLOCK_D]
            b_left = attention_tile(
                p_query, key_ptr, b_max, b_sum, o_d, o_p, D, E, BLOCK_E, PRECISION
            )
            b_left = deviation_tile(b_left, p_mean, o_d, o_p, D)
            b_left = b_left * tl.load(grad_scatter_ptr + i_pair)
            b_right = attention_tile(
                p_query, key_ptr, b_max, b_sum, o_d, o_q, D, E, BLOCK_E, PRECISION
            )
            b_right = deviation_tile(b_right, p_mean, o_d, o_q, D)
            b_out = tl.dot(tl.trans(b_left), b_right, b_out, input_precision=PRECISION)
    tl.store(
        grad_gram_ptr + i_target * D * D + o_p[:, None] * D + o_q[None, :],
        b_out,
        mask=(o_p < D)[:, None] & (o_q < D)[None, :],
    )


# NVIDIA's assembler spills before it has used all registers, unless it is given their number.
OPTIONS: dict[str, Any] = {
    "BLOCK_ROW": 16,
    "BLOCK_D": 64,
    "BLOCK_E": 32,
    "num_warps": 4,
    "num_stages": 1,
    "maxnreg": 255,
}


def plan(tokens: int, width: int) -> dict[str, Any]:
    """Return the launch options: smaller tiles for rows that are not aligned, which need more."""
    wide = wide_products()
    options = OPTIONS | {"D": tokens, "E": width, "PRECISION": "tf32x3" if wide else "ieee"}
    if tokens % 4 and not wide:
        options["BLOCK_D"] = min(32, options["BLOCK_D"])
    return options


def forward(query: Tensor, key: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and scatter, as `pair_pool.forward` does."""
    query, key = query.contiguous(), key.contiguous()
    batch, nodes, tokens, width = query.shape
    pairs = batch * nodes * nodes
    mean = query.new_empty((batch, nodes, nodes, tokens))
    scatter = query.new_empty((0,) if gram is None else (batch, nodes, nodes))
    statistics = query.new_empty((2, *mean.shape))
    options = plan(tokens, width)
    rows, columns = (triton.cdiv(tokens, options[name]) for name in ("BLOCK_ROW", "BLOCK_D"))
    sizes = (mean.numel(), nodes)
    launch(statistic_kernel, (pairs, rows), query, key, statistics, *sizes, **options)
    launch(mean_kernel, (pairs, columns), query, key, statistics, mean, *sizes, **options)
    if gram is not None:
        inputs = (query, key, gram.contiguous(), statistics, mean)
        launch(scatter_kernel, (pairs,), *inputs, scatter, *sizes, **options)
    return mean, scatter


def backward(
    grad_mean: Tensor,
    grad_scatter: Tensor,
    mean: Tensor,
    query: Tensor,
    key: Tensor,
    gram: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and gram, as `pair_pool.backward` does."""
    batch, nodes, tokens, width = query.shape
    both = key if gram is None else gram + gram.mT
    inputs = [tensor.contiguous() for tensor in (grad_mean, grad_scatter, mean, query, key, both)]
    grad_mean, grad_scatter, mean, query, key, both = inputs
    statistics = query.new_empty((3, *mean.shape))
    grad_query, grad_key = torch.empty_like(query), torch.empty_like(key)
    grad_gram = query.new_empty((0,) if gram is None else gram.shape)
    sizes = (mean.numel(), nodes)
    options = plan(tokens, width)
    rows, columns = (triton.cdiv(tokens, options[name]) for name in ("BLOCK_ROW", "BLOCK_D"))
    pairs = batch * nodes * nodes
    launch(row_kernel, (pairs, rows), *inputs, statistics, *sizes, GRAM=gram is not None, **options)
    out = min(128, power_of_two(width))
    strip_options = options | {"GRAM": gram is not None, "BLOCK_OUT": out}
    strips = triton.cdiv(width, out)
    for kernel, blocks, grad in (
        (target_kernel, columns, grad_key),
        (source_kernel, rows, grad_query),
    ):
        grid = (batch * nodes, blocks, strips)
        launch(kernel, grid, *inputs, statistics, grad, *sizes, **strip_options)
    if gram is not None:
        given = (grad_scatter, mean, query, key, statistics, grad_gram)
        launch(gram_kernel, (batch * nodes, columns, columns), *given, *sizes, **options)
    return grad_query, grad_key, grad_gram


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls with every kernel and option, on CPU tensors, to be compiled."""
    for tokens, width, scattered in (
        (144, 144, True),
        (100, 40, True),
        (65, 1, True),
        (81, 256, False),
    ):
        query = torch.empty(2, 3, tokens, width)
        gram = query.new_empty(2, 3, tokens, tokens) if scattered else None
        mean = query.new_empty(2, 3, 3, tokens)
        yield partial(forward, query, query, gram)
        yield partial(backward, mean, mean[..., 0], mean, query, query, gram)
