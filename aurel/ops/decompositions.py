"""The operators in plain torch, for exporters that know no operators but torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aurel.ops.edge_update import edge_update_reference
from aurel.ops.gated_edge_aggregate import gated_edge_aggregate_reference
from aurel.ops.graph_attention import graph_attention_reference
from aurel.ops.knn_graph import knn_graph_reference
from aurel.ops.knn_max_relative import knn_max_relative_reference
from aurel.ops.neighbor_aggregate import Reduce, neighbor_aggregate_reference
from aurel.ops.pair_pool import pair_pool_reference
from aurel.ops.topk_aggregate import Ties, topk_aggregate_reference


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the definition of each operator on dense graphs, by operator.

    For `torch.export.ExportedProgram.run_decompositions`. The programs are for inference: what an
    operator keeps for its gradient is left empty.
    """
    ops = torch.ops.aurel
    return {
        ops.edge_update.default: _edge_update,
        ops.gated_edge_aggregate.default: _gated_edge_aggregate,
        ops.graph_attention.default: _graph_attention,
        ops.knn_graph.default: _knn_graph,
        ops.knn_max_relative.default: _knn_max_relative,
        ops.neighbor_aggregate.default: _neighbor_aggregate,
        ops.pair_pool.default: _pair_pool,
        ops.topk_aggregate.default: _topk_aggregate,
    }


def _edge_update(
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    mask: Tensor | None,
    eps: float,
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = (edges, projected, target, source, weight, bias)
    nothing = weight.new_empty(0)
    if mean is None or var is None:
        return *edge_update_reference(*given, eps=eps, mask=mask), nothing
    new, _, _ = edge_update_reference(*given, (mean, var), eps=eps, mask=mask)
    return new, nothing, nothing, nothing


def _gated_edge_aggregate(edge: Tensor, values: Tensor, mask: Tensor | None, impl: str) -> Tensor:
    return gated_edge_aggregate_reference(edge, values, mask)


def _graph_attention(
    values: Tensor,
    target_score: Tensor,
    source_score: Tensor,
    adjacency: Tensor,
    negative_slope: float,
    return_weights: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    out, weights = graph_attention_reference(
        values, target_score, source_score, adjacency, negative_slope
    )
    return out, weights if return_weights else weights.new_empty(0)


def _knn_graph(
    x: Tensor, mask: Tensor | None, k: int, metric: str, loop: bool, impl: str
) -> Tensor:
    return knn_graph_reference(x, k, metric, loop=loop, mask=mask)


def _knn_max_relative(
    x: Tensor,
    mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    keep_winner: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    out, neighbors = knn_max_relative_reference(x, k, metric, loop=loop, mask=mask)
    return out, neighbors, neighbors.new_empty(0, dtype=torch.uint8)


def _neighbor_aggregate(
    x: Tensor, neighbors: Tensor, reduce: Reduce, keep_winner: bool, impl: str
) -> tuple[Tensor, Tensor]:
    out = neighbor_aggregate_reference(x, neighbors, reduce)
    return out, neighbors.new_empty(0, dtype=torch.uint8)


def _pair_pool(query: Tensor, key: Tensor, gram: Tensor | None, impl: str) -> tuple[Tensor, Tensor]:
    mean, scatter = pair_pool_reference(query, key, gram)
    return mean, mean.new_empty(0) if scatter is None else scatter


def _topk_aggregate(
    x: Tensor, values: Tensor, mask: Tensor | None, k: int, metric: str, ties: Ties, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    out, neighbors = topk_aggregate_reference(x, values, k, metric, ties=ties, mask=mask)
    return out, neighbors, out.new_empty(0)
