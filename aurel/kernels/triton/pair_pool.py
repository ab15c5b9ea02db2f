"""Attention between the tokens of every pair of nodes, pooled over the querying tokens.

Forward, for queries L and keys R (B, N, D, E), Gram matrices G (B, N, D, D) or none, target i and
source j, with a_d the D rows of A_ij = softmax(L_j R_i^T):
    w_ij = sum_d a_d / D, s_ij = sum_d (a_d - w_ij) G_i (a_d - w_ij)^T,
written to mean (B, N, N, D) and scatter (B, N, N). Rows come sixteen at a time, before their mean
is known, so deviations are taken from c, the mean of the first sixteen, and corrected:
    s_ij = sum_d (a_d - c) G_i (a_d - c)^T - D (w_ij - c) G_i (w_ij - c)^T.
c lies among the rows, so the correction is never large compared with the result.

Backward, from v = dL/dw and u = dL/ds, with X the rows a_d - w_ij:
    dA = v / D + u X (G_i + G_i^T), dS = A * (dA - rowsum(A * dA)),
    dL_j = sum_i dS R_i, dR_i = sum_j dS^T L_j, dG_i = sum_j u X^T X.
One kernel owns targets (dR, dG), one owns sixteen tokens of a source (dL), so no atomics are needed
and every run gives the same bits. A is computed again; mean is all that the forward saves.

Nothing of size D^2 a pair reaches memory. All is float32, products as PRECISION says. One launch
forward and two backward, or three with Gram matrices, for up to WHOLE_PAIR tokens;
`pair_pool_large` serves more. E is cut into strips of WHOLE_PAIR, whose gradients belong to
programs of their own that all compute the scores. D and E are compile-time constants: addresses of
ragged rows then cost no registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton import pair_pool_large
from aurel.kernels.triton.launch import PLANS, Launch, cdiv
from aurel.kernels.triton.pair_pool_backward import source_kernel, symmetric_kernel, target_kernel
from aurel.kernels.triton.pair_pool_forward import forward_kernel
from aurel.kernels.triton.precision import wide_products
from aurel.kernels.triton.sizes import WHOLE_PAIR, power_of_two


def plan(tokens: int, width: int, wide: bool, block_row: int, num_warps: int) -> dict[str, Any]:
    """Return the launch options, with as many rows at a time as do not spill.

    The last arguments hold where products are wide; elsewhere rows come in sixteens.
    """
    block_d = power_of_two(tokens)
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
    launch = forward_plan(batch, nodes, tokens, width, gram is not None, wide_products())
    launch(query, key, key if gram is None else gram.contiguous(), mean, scatter)
    return mean, scatter


@lru_cache(PLANS)
def forward_plan(batch: int, nodes: int, tokens: int, width: int, gram: bool, wide: bool) -> Launch:
    """Return the launch of the forward kernel."""
    options = plan(tokens, width, wide, block_row=64 if width <= WHOLE_PAIR else 16, num_warps=4)
    sizes = {"D": tokens, "E": width, "GRAM": gram}
    return Launch(forward_kernel, (batch, nodes), (nodes,), **sizes, **options)


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
        grad_mean: (B, N, N, D), float32, as all tensors.
        grad_scatter: (B, N, N), not read without `gram`.
        mean: (B, N, N, D), of `forward`.
        query: (B, N, D, E).
        key: (B, N, D, E).
        gram: (B, N, D, D) or None.
    """
    batch, nodes, tokens, width = query.shape
    if tokens > WHOLE_PAIR:
        return pair_pool_large.backward(grad_mean, grad_scatter, mean, query, key, gram)
    launches = backward_plan(batch, nodes, tokens, width, gram is not None, wide_products())
    symmetrize, of_targets, of_sources, block = launches
    if gram is None:
        grad_gram, symmetric = query.new_empty((0,)), key
    else:
        gram = gram.contiguous()
        grad_gram = torch.empty_like(gram)
        symmetric = gram.new_empty((batch, nodes, block, block))
        symmetrize(gram, symmetric)
    inputs = [
        tensor.contiguous() for tensor in (grad_mean, grad_scatter, mean, query, key, symmetric)
    ]
    grad_query, grad_key = torch.empty_like(inputs[3]), torch.empty_like(inputs[4])
    of_targets(*inputs, grad_key, grad_gram)
    of_sources(*inputs, grad_query)
    return grad_query, grad_key, grad_gram


@lru_cache(PLANS)
def backward_plan(
    batch: int, nodes: int, tokens: int, width: int, gram: bool, wide: bool
) -> tuple[Launch, Launch, Launch, int]:
    """Return the launches for G + G^T, for targets and for sources, and BLOCK_D."""
    of_targets = plan(tokens, width, wide, block_row=16, num_warps=4)
    of_sources = plan(tokens, width, wide, block_row=32, num_warps=8)
    sizes = {"D": tokens, "E": width, "GRAM": gram}
    strips = cdiv(width, of_targets["BLOCK_E"])
    blocks = nodes * cdiv(tokens, of_sources["BLOCK_ROW"])
    block_d = of_targets["BLOCK_D"]
    return (
        Launch(symmetric_kernel, (batch * nodes,), D=tokens, BLOCK_D=block_d, num_warps=4),
        Launch(target_kernel, (batch, nodes, strips), (nodes,), **sizes, **of_targets),
        Launch(source_kernel, (batch, blocks, strips), (nodes,), **sizes, **of_sources),
        block_d,
    )


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
