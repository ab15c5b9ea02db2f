"""What the matrix products inside our ops cost, for `torch.utils.flop_counter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Shape = torch.Size


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Return the floating-point operations of each op that multiplies matrices, by operator.

    A `FlopCounterMode` does not look into custom operators: give it these as its `custom_mapping`.
    Forward passes, two operations a multiply-add; what is not a product of matrices counts for
    nothing, as in torch's own formulas.
    """
    ops = torch.ops.aurel
    return {
        ops.knn_graph: _knn,
        ops.knn_max_relative: _knn,
        ops.topk_aggregate: _topk_aggregate,
        ops.pair_pool: _pair_pool,
        ops.graph_attention: _graph_attention,
    }


def _knn(x: Shape, mask: Shape | None, k: int, metric: str, *_: Any, out_shape: Any = None) -> int:
    """Count the products of all pairs of nodes; Manhattan distances need none."""
    batch, nodes, channels = x
    return 0 if metric == "l1" else 2 * batch * nodes * nodes * channels


def _topk_aggregate(
    x: Shape,
    values: Shape,
    mask: Shape | None,
    k: int,
    metric: str,
    ties: str,
    impl: str,
    out_shape: Any = None,
) -> int:
    batch, nodes, channels = values
    average = 2 * batch * nodes * nodes * channels if ties == "all" else 0
    return _knn(x, mask, k, metric) + average


def _pair_pool(
    query: Shape, key: Shape, gram: Shape | None, impl: str, out_shape: Any = None
) -> int:
    batch, nodes, tokens, width = query
    inner = width if gram is None else width + tokens
    return 2 * batch * nodes * nodes * tokens * tokens * inner


def _graph_attention(values: Shape, *_: Any, out_shape: Any = None) -> int:
    batch, heads, nodes, channels = values
    return 2 * batch * heads * nodes * nodes * channels
