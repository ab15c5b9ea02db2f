"""Functions of tensors: graphs of nearest neighbours, aggregation, attention.

Each op has one definition in plain torch (`<op>_reference` in the module of its name), a fast path
for the CPU, and a place for a Triton kernel behind the same `torch.library` operator.
"""

from __future__ import annotations

from aurel.name_clash import check_owner
from aurel.ops.backend import Backend, use_backend
from aurel.ops.edge_update import edge_update
from aurel.ops.gated_edge_aggregate import gated_edge_aggregate
from aurel.ops.graph_attention import graph_attention
from aurel.ops.knn_graph import knn_graph
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate
from aurel.ops.pair_pool import pair_pool
from aurel.ops.pairwise_cross_attention import pairwise_cross_attention
from aurel.ops.pairwise_marginals import pairwise_marginals
from aurel.ops.pairwise_mode import pairwise_mode
from aurel.ops.ragged_aggregate import ragged_knn_max_relative, ragged_neighbor_aggregate
from aurel.ops.ragged_knn_graph import ragged_knn_graph
from aurel.ops.topk_aggregate import topk_aggregate

check_owner()

__all__ = [
    "Backend",
    "edge_update",
    "gated_edge_aggregate",
    "graph_attention",
    "knn_graph",
    "knn_max_relative",
    "neighbor_aggregate",
    "pair_pool",
    "pairwise_cross_attention",
    "pairwise_marginals",
    "pairwise_mode",
    "ragged_knn_graph",
    "ragged_knn_max_relative",
    "ragged_neighbor_aggregate",
    "topk_aggregate",
    "use_backend",
]
