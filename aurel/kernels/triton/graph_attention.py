"""Attention of many dense graphs along given edges: scores, masked softmax, weighted sum.

Forward, for the edges j -> i of adjacency (N, N) or (B, N, N):
    w_ij = softmax over j of leaky_relu(t_i + s_j), y_i = sum_j w_ij z_j,
with values z and out y (B, H, N, C), scores t and s (B, H, N). A row without edges gives zeros. The
sum runs over edges, so other values have no effect. An infinite value with a positive weight gives
infinity of its sign, two of different signs or one with weight zero give NaN. A product of matrices
gives NaN in other cases, too; where it is not finite, the sum is computed again, edge by edge.

Backward, from g = dL/dy and h = dL/dw:
    d_ij = g_i z_j + h_ij, D_i = sum_j w_ij d_ij, p_ij = w_ij (d_ij - D_i) leaky_relu'(t_i + s_j),
    dt_i = sum_j p_ij, ds_j = sum_i p_ij, dz_j = sum_i w_ij g_i.

Up to `whole_graph` nodes a program holds all weights of a head: one launch each way.
`graph_attention_large` serves more. Only the inputs are saved; weights (B, H, N, N) are written
only if they are requested. Everything is float32 inside, products as `precision` says.
Values, scores and the gradient of y may be views with other strides, such as heads that were split
off the channels; only channels must lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton import graph_attention_large
from aurel.kernels.triton.graph_attention_backward import backward_kernel
from aurel.kernels.triton.graph_attention_forward import forward_kernel
from aurel.kernels.triton.graph_attention_problem import Heads, rows
from aurel.kernels.triton.launch import PLANS, Launch, cdiv, empty_for
from aurel.kernels.triton.precision import whole_graph
from aurel.kernels.triton.sizes import power_of_two


def plan(nodes: int, channels: int, widest: int) -> dict[str, Any]:
    """Return the launch options: as many channels at a time as do not spill."""
    block_n = power_of_two(nodes)
    return {
        "BLOCK_N": block_n,
        "BLOCK_C": min(widest, power_of_two(channels)),
        "num_warps": 4 if block_n <= 32 else 8,
        "num_stages": 1,
    }


def forward(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Return the aggregate (B, H, N, C) and the weights (B, H, N, N), else empty.

    Args:
        values: (B, H, N, C), float32, float16 or bfloat16, like the scores.
        target_score: (B, H, N).
        source_score: (B, H, N).
        adjacency: (N, N) or (B, N, N), bool.
        negative_slope: of the leaky ReLU.
        return_weights: write the weights.
    """
    heads = Heads(values, target_score, source_score, adjacency, negative_slope)
    out = empty_for(values)
    weights = values.new_empty((*values.shape[:3], heads.nodes) if return_weights else (0,))
    if heads.nodes > whole_graph():
        graph_attention_large.forward(heads, out, weights, return_weights)
        return out, weights
    launch = forward_plan(
        heads.count, heads.value_strides, heads.sizes, return_weights, heads.precision
    )
    launch(*heads.inputs, out, weights)
    return out, weights


@lru_cache(PLANS)
def forward_plan(
    count: int,
    strides: tuple[int, ...],
    sizes: tuple[Any, ...],
    return_weights: bool,
    precision: str,
) -> Launch:
    """Return the launch of the forward kernel; the arguments are those of `Heads`."""
    nodes, channels = sizes[5:7]
    options = plan(nodes, channels, widest=64)
    return Launch(
        forward_kernel,
        (count, max(1, cdiv(channels, options["BLOCK_C"]))),
        (*strides, *sizes),
        WEIGHTS=return_weights,
        PRECISION=precision,
        **options,
    )


def backward(
    grad_out: Tensor | None,
    grad_weights: Tensor | None,
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of values and both scores.

    Args:
        grad_out: (B, H, N, C), or None if only the weights were used.
        grad_weights: (B, H, N, N), or None if the weights were not used.
        values: (B, H, N, C), as in `forward`.
        target_score: (B, H, N).
        source_score: (B, H, N).
        adjacency: (N, N) or (B, N, N), bool.
        negative_slope: of the leaky ReLU.
    """
    heads = Heads(values, target_score, source_score, adjacency, negative_slope)
    grad_values = values.new_zeros(values.shape) if grad_out is None else empty_for(values)
    grads = (grad_values, empty_for(target_score), empty_for(source_score))
    grad_out = None if grad_out is None else rows(grad_out)
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    if heads.nodes > whole_graph():
        graph_attention_large.backward(heads, grad_out, grad_weights, grads)
        return grads
    unread = heads.inputs[0]
    launch = backward_plan(
        heads.count,
        heads.value_strides if grad_out is None else grad_out.stride()[:3],
        heads.value_strides,
        heads.sizes,
        grad_out is not None,
        grad_weights is not None,
        heads.upcast,
        heads.precision,
    )
    launch(
        unread if grad_out is None else grad_out,
        unread if grad_weights is None else grad_weights,
        *heads.inputs,
        *grads,
    )
    return grads


@lru_cache(PLANS)
def backward_plan(
    count: int,
    grad_strides: tuple[int, ...],
    strides: tuple[int, ...],
    sizes: tuple[Any, ...],
    of_out: bool,
    of_weights: bool,
    upcast: bool,
    precision: str,
) -> Launch:
    """Return the launch of the backward kernel; the arguments are those of `Heads`."""
    return Launch(
        backward_kernel,
        (count,),
        (*grad_strides, *strides, *sizes),
        OUT=of_out,
        WEIGHTS=of_weights,
        UPCAST=upcast,
        PRECISION=precision,
        **plan(sizes[5], sizes[6], widest=32),
    )


def examples() -> Iterator[Callable[[], object]]:
    """Yield calls with every kernel and option, on CPU tensors, to be compiled."""
    for nodes, channels, dtype, weighted in (
        (12, 512, torch.float32, False),
        (17, 40, torch.bfloat16, False),
        (41, 128, torch.float32, False),
        (41, 65, torch.float16, True),
        (196, 65, torch.float32, True),
        (100, 64, torch.bfloat16, False),
    ):
        values = torch.empty(2, nodes, 2, channels, dtype=dtype).transpose(1, 2)
        score = values.new_empty(2, nodes, 2).transpose(1, 2)
        edges = torch.empty(2, nodes, nodes, dtype=torch.bool)
        weights = torch.empty(2, 2, nodes, nodes, dtype=dtype) if weighted else None
        yield partial(forward, values, score, score, edges, 0.2, weighted)
        yield partial(backward, values, weights, values, score, score, edges, 0.2)
    values, score = torch.empty(2, 2, 41, 64), torch.empty(2, 2, 41)
    edges = torch.empty(41, 41, dtype=torch.bool)
    yield partial(backward, None, values[..., :41], values, score, score, edges, 0.2)
