"""`graph_attention` of more nodes than fit into a tile: the equations are those of that module.

Scores cost one addition, so every pass computes them again, tile by tile. One kernel owns rows
(dt), two own columns (ds; dz), so no atomics are needed and every run gives the same bits. From the
first backward kernel to the others go three numbers a row: its largest score, its sum of
exponentials, and D. One launch forward, up to three backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.graph_attention_large_backward import (
    column_kernel,
    row_kernel,
    value_kernel,
)
from aurel.kernels.triton.graph_attention_large_forward import forward_tile_kernel
from aurel.kernels.triton.graph_attention_problem import Heads
from aurel.kernels.triton.launch import cdiv, launch

OPTIONS: dict[str, Any] = {"BLOCK_N": 32, "BLOCK_C": 32, "num_warps": 8, "num_stages": 1}


def forward(heads: Heads, out: Tensor, weights: Tensor, return_weights: bool) -> None:
    """Write the aggregate and, if requested, the weights."""
    launch(
        forward_tile_kernel,
        (
            heads.count,
            cdiv(heads.nodes, OPTIONS["BLOCK_N"]),
            max(1, cdiv(heads.channels, OPTIONS["BLOCK_C"])),
        ),
        *heads.inputs,
        out,
        weights,
        *heads.value_strides,
        *heads.sizes,
        WEIGHTS=return_weights,
        PRECISION=heads.precision,
        **OPTIONS,
    )


def backward(
    heads: Heads,
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of values and both scores; that of values only if there is grad_out."""
    values, *graph = heads.inputs
    grad_values, grad_target, grad_source = grads
    statistics = values.new_empty((3, heads.count * heads.nodes), dtype=torch.float32)
    inputs = (
        values if grad_out is None else grad_out,
        values if grad_weights is None else grad_weights,
        values,
    )
    strides = heads.value_strides if grad_out is None else grad_out.stride()[:3]
    sizes = (statistics.shape[1], *strides, *heads.value_strides, *heads.sizes)
    options = OPTIONS | {
        "OUT": grad_out is not None,
        "WEIGHTS": grad_weights is not None,
        "UPCAST": heads.upcast,
        "PRECISION": heads.precision,
    }
    grid = (heads.count, cdiv(heads.nodes, OPTIONS["BLOCK_N"]))
    launch(row_kernel, grid, *inputs, *graph, statistics, grad_target, *sizes, **options)
    launch(column_kernel, grid, *inputs, *graph, statistics, grad_source, *sizes, **options)
    if grad_out is not None:
        launch(
            value_kernel,
            (*grid, cdiv(heads.channels, OPTIONS["BLOCK_C"])),
            grad_out,
            *graph,
            statistics,
            grad_values,
            statistics.shape[1],
            *strides,
            *heads.sizes,
            PRECISION=heads.precision,
            **OPTIONS,
        )
