"""`pair_pool` of more tokens than fit into a tile: the equations are those of that module.

Every kernel computes the attention again, tile by tile, from two numbers a row: its largest score
and its sum of exponentials. Since no row is held as a whole, X G takes another pass over the
columns of X, of which it sums the tiles.

Forward, two launches, three with Gram matrices: the statistics (B, N, N, D), by rows; then the mean
over rows, by columns; then the scatter, which needs that mean, by pairs.

Backward, three launches, four with Gram matrices: the statistics and rowsum(A * dA), by rows; dR;
dL; dG. A program owns its outputs and sums in a fixed order, without atomics, so every run gives
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.launch import cdiv, launch
from aurel.kernels.triton.pair_pool_large_backward import (
    gram_kernel,
    row_kernel,
    source_kernel,
    target_kernel,
)
from aurel.kernels.triton.pair_pool_large_forward import (
    mean_kernel,
    scatter_kernel,
    statistic_kernel,
)
from aurel.kernels.triton.precision import wide_products
from aurel.kernels.triton.sizes import power_of_two

# With `maxnreg`, NVIDIA's assembler uses all registers before it spills.
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
    rows, columns = (cdiv(tokens, options[name]) for name in ("BLOCK_ROW", "BLOCK_D"))
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
    symmetric = key if gram is None else gram + gram.mT
    tensors = (grad_mean, grad_scatter, mean, query, key, symmetric)
    inputs = [tensor.contiguous() for tensor in tensors]
    grad_mean, grad_scatter, mean, query, key, _ = inputs
    statistics = query.new_empty((3, *mean.shape))
    grad_query, grad_key = torch.empty_like(query), torch.empty_like(key)
    grad_gram = query.new_empty((0,) if gram is None else gram.shape)
    sizes = (mean.numel(), nodes)
    options = plan(tokens, width)
    rows, columns = (cdiv(tokens, options[name]) for name in ("BLOCK_ROW", "BLOCK_D"))
    pairs = batch * nodes * nodes
    launch(row_kernel, (pairs, rows), *inputs, statistics, *sizes, GRAM=gram is not None, **options)
    out = min(128, power_of_two(width))
    strip_options = options | {"GRAM": gram is not None, "BLOCK_OUT": out}
    strips = cdiv(width, out)
    for kernel, blocks, grad in (
        (target_kernel, columns, grad_key),
        (source_kernel, rows, grad_query),
    ):
        grid = (batch * nodes, blocks, strips)
        launch(kernel, grid, *inputs, statistics, grad, *sizes, **strip_options)
    if gram is not None:
        tensors = (grad_scatter, mean, query, key, statistics, grad_gram)
        launch(gram_kernel, (batch * nodes, columns, columns), *tensors, *sizes, **options)
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
