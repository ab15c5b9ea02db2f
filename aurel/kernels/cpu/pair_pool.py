"""Two moments of the attention between the tokens of every pair of nodes.

A part of the work is some targets of one image. A target's attention over a group of sources is one
matrix product, which stays in the cache until its moments are taken; backward computes it again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aurel.kernels.cpu.arrays import flat, result
from aurel.kernels.cpu.compiler import inlined, kernel
from aurel.kernels.cpu.pair_columns import (
    differentiate_softmax,
    fill_transposed,
    group_size,
    multiply,
    multiply_rows,
    padded,
    softmax_columns,
    stride_of,
    zeros,
)
from aurel.kernels.cpu.ranges import ranged
from aurel.kernels.cpu.rows import row_part
from aurel.kernels.cpu.threads import run
from aurel.kernels.cpu.tile_products import VECTOR_BYTES
from aurel.kernels.cpu.vector_math import prefer_wide_vectors

_PARTS = 12  # fewest parts of a batch: independent of the number of threads, as are the results


@inlined
def _gather(query, image, nodes, tokens, width, source, sources, stride, out):
    """Write the queries of a group of sources as columns; the padding is zero."""
    out[:] = 0
    start = (image * nodes + source) * tokens * width
    fill_transposed(query, start, sources * tokens, width, out, stride)


@kernel
def _attend(key, target, columns, tokens, width, stride, lanes, padded_key, attention):
    """Write the attention of a group of sources to a target."""
    padded_key[: tokens * width] = row_part(key, target, tokens * width, 0, tokens * width)
    multiply(padded_key, columns, attention, tokens, width, stride, lanes, True)
    softmax_columns(attention, tokens, stride)


@kernel
def _subtract_mean(attention, tokens, stride, sources, mean, first, scale, out):
    """Write scale (attention - mean) of each source; first: the pair of the first source."""
    prefer_wide_vectors()
    for row in range(tokens):
        for j in range(sources):
            a = row_part(attention, row, stride, j * tokens, tokens)
            o = row_part(out, row, stride, j * tokens, tokens)
            center, factor = mean[(first + j) * tokens + row], scale[j]
            for c in range(tokens):
                o[c] = factor * (a[c] - center)


@kernel
def _write_mean(attention, tokens, stride, sources, first, mean):
    """Write the mean row of each source's attention; first: the pair of the first source."""
    prefer_wide_vectors()
    for row in range(tokens):
        for j in range(sources):
            a = row_part(attention, row, stride, j * tokens, tokens)
            total = attention.dtype.type(0)
            for c in range(tokens):
                total += a[c]
            mean[(first + j) * tokens + row] = total / tokens


@kernel
def _write_scatter(deviation, moved, tokens, stride, sources, first, squares, scatter):
    """Write the sum of the products of two matrices over each source's columns."""
    prefer_wide_vectors()
    squares[:] = 0
    for row in range(tokens):
        d = row_part(deviation, row, stride, 0, stride)
        m = row_part(moved, row, stride, 0, stride)
        for c in range(stride):
            squares[c] += d[c] * m[c]
    for j in range(sources):
        s = row_part(squares, 0, stride, j * tokens, tokens)
        total = squares.dtype.type(0)
        for c in range(tokens):
            total += s[c]
        scatter[first + j] = total


@ranged
def _pool(start, stop, query, key, gram, sizes, mean, scatter):
    """Write the moments of some blocks of targets."""
    prefer_wide_vectors()
    nodes, tokens, width, blocks, group, stride, lanes = sizes
    rows = padded(tokens)
    columns = zeros(width * stride, query)
    attention = zeros(rows * stride, query)
    moved = zeros(rows * stride, query)
    squares = zeros(stride, query)
    ones = np.ones(group, query.dtype)
    padded_key = zeros(rows * width, query)
    padded_gram = zeros(rows * tokens, query)
    for part in range(start, stop):
        image, block = part // blocks, part % blocks
        for source in range(0, nodes, group):
            sources = min(group, nodes - source)
            _gather(query, image, nodes, tokens, width, source, sources, stride, columns)
            for i in range(block * nodes // blocks, (block + 1) * nodes // blocks):
                target = image * nodes + i
                pair = target * nodes + source
                _attend(key, target, columns, tokens, width, stride, lanes, padded_key, attention)
                _write_mean(attention, tokens, stride, sources, pair, mean)
                if gram.size > 0:
                    size = tokens * tokens
                    padded_gram[:size] = row_part(gram, target, size, 0, size)
                    _subtract_mean(attention, tokens, stride, sources, mean, pair, ones, attention)
                    multiply(padded_gram, attention, moved, tokens, tokens, stride, lanes, True)
                    _write_scatter(
                        attention, moved, tokens, stride, sources, pair, squares, scatter
                    )


@kernel
def _add_mean_gradient(grad_mean, tokens, stride, sources, first, grad):
    """Add to the gradient of the attention that through the mean rows."""
    prefer_wide_vectors()
    size = grad.dtype.type(tokens)
    for row in range(tokens):
        for j in range(sources):
            o = row_part(grad, row, stride, j * tokens, tokens)
            share = grad_mean[(first + j) * tokens + row] / size
            for c in range(tokens):
                o[c] += share


@inlined
def _both_ways(gram, target, tokens, out):
    """Write a target's gram matrix plus its transpose."""
    first = target * tokens * tokens
    for p in range(tokens):
        for q in range(tokens):
            out[p * tokens + q] = gram[first + p * tokens + q] + gram[first + q * tokens + p]


@ranged
def _differentiate(start, stop, grad_mean, grad_scatter, mean, query, key, gram, sizes, grads):
    """Write the gradients of some blocks of targets; that of the query for each block apart."""
    prefer_wide_vectors()
    grad_query, grad_key, grad_gram = grads
    nodes, tokens, width, blocks, group, stride, lanes = sizes
    rows, wide_rows = padded(tokens), padded(width)
    columns = zeros(wide_rows * stride, query)
    grad_columns = zeros(wide_rows * stride, query)
    attention = zeros(rows * stride, query)
    weighted = zeros(rows * stride, query)
    grad = zeros(rows * stride, query)
    padded_key = zeros(rows * width, query)
    transposed_key = zeros(wide_rows * tokens, query)
    both = zeros(rows * tokens, query)
    tiles = zeros(rows * max(rows, wide_rows), query)
    for part in range(start, stop):
        image, block = part // blocks, part % blocks
        targets = (block * nodes // blocks, (block + 1) * nodes // blocks)
        for i in range(targets[0], targets[1]):
            row_part(grad_key, image * nodes + i, tokens * width, 0, tokens * width)[:] = 0
            if gram.size > 0:
                row_part(grad_gram, image * nodes + i, tokens * tokens, 0, tokens * tokens)[:] = 0
        for source in range(0, nodes, group):
            sources = min(group, nodes - source)
            _gather(query, image, nodes, tokens, width, source, sources, stride, columns)
            grad_columns[:] = 0
            for i in range(targets[0], targets[1]):
                target = image * nodes + i
                pair = target * nodes + source
                _attend(key, target, columns, tokens, width, stride, lanes, padded_key, attention)
                if gram.size > 0:
                    scale = row_part(grad_scatter, pair, 1, 0, sources)
                    _subtract_mean(attention, tokens, stride, sources, mean, pair, scale, weighted)
                    # Rows of `weighted` sum to zero for each source, so the other factor may keep
                    # its mean.
                    size = tokens * tokens
                    g = row_part(grad_gram, target, size, 0, size)
                    multiply_rows(
                        weighted, attention, tokens, tokens, stride, lanes, True, tiles, g
                    )
                    _both_ways(gram, target, tokens, both)
                    multiply(both, weighted, grad, tokens, tokens, stride, lanes, True)
                else:
                    grad[:] = 0
                _add_mean_gradient(grad_mean, tokens, stride, sources, pair, grad)
                differentiate_softmax(attention, grad, tokens, stride)
                k = row_part(grad_key, target, tokens * width, 0, tokens * width)
                multiply_rows(grad, columns, tokens, width, stride, lanes, False, tiles, k)
                fill_transposed(key, target * tokens * width, tokens, width, transposed_key, tokens)
                multiply(transposed_key, grad, grad_columns, width, tokens, stride, lanes, False)
            first = ((image * blocks + block) * nodes + source) * tokens * width
            for column in range(sources * tokens):
                for row in range(width):
                    place = first + column * width + row
                    grad_query[place] = grad_columns[row * stride + column]


def _blocks(batch: int, nodes: int) -> int:
    """Return the number of blocks of targets of an image."""
    return max(1, min(nodes, -(-_PARTS // max(batch, 1))))


def _sizes(query: Tensor) -> tuple[int, ...]:
    """Return the sizes that both kernels take."""
    batch, nodes, tokens, width = query.shape
    group = group_size(nodes, tokens)
    dtype = flat(query).dtype
    stride = stride_of(group * tokens, dtype)
    lanes = VECTOR_BYTES // dtype.itemsize
    return nodes, tokens, width, _blocks(batch, nodes), group, stride, lanes


def _optional(gram: Tensor | None, like: Tensor) -> Tensor:
    return result(like, 0) if gram is None else gram


def forward(query: Tensor, key: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean rows (B, N, N, D) and the scatter (B, N, N), or (0,) without a gram."""
    batch, nodes, tokens, width = query.shape
    mean = result(query, batch, nodes, nodes, tokens)
    scatter = result(query, *((0,) if gram is None else (batch, nodes, nodes)))
    if mean.numel() == 0:
        return mean, scatter.zero_()
    inputs = [flat(each) for each in (query, key, _optional(gram, query))]
    parts = batch * _blocks(batch, nodes)
    work = mean.numel() * tokens * (width + tokens)
    run(_pool, parts, work, *inputs, _sizes(query), flat(mean), flat(scatter))
    return mean, scatter


def backward(
    grad_mean: Tensor,
    grad_scatter: Tensor,
    mean: Tensor,
    query: Tensor,
    key: Tensor,
    gram: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and gram, the last (0,) without a gram."""
    batch, nodes, tokens, width = query.shape
    blocks = _blocks(batch, nodes)
    parts = result(query, batch, blocks, nodes, tokens, width)
    grad_key = result(key, *key.shape)
    grad_gram = result(query, *((0,) if gram is None else gram.shape))
    if mean.numel() == 0:
        return torch.zeros_like(query), torch.zeros_like(key), grad_gram.zero_()
    inputs = (grad_mean, grad_scatter, mean, query, key, _optional(gram, query))
    outputs = (parts, grad_key, grad_gram)
    run(
        _differentiate,
        batch * blocks,
        4 * mean.numel() * tokens * (width + tokens),
        *(flat(each) for each in inputs),
        _sizes(query),
        tuple(flat(each) for each in outputs),
    )
    grad_query = parts[:, 0] if blocks == 1 else parts.sum(1)
    return grad_query, grad_key, grad_gram
