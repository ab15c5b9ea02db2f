"""Layers on graphs of any size and conversions, for users of PyTorch Geometric."""

from __future__ import annotations

from aurel.pyg.convert import from_batch, from_hetero, to_batch, to_hetero
from aurel.pyg.dynamic_edge_conv import DynamicEdgeConv
from aurel.pyg.edges import complete_graph, edge_index_of, neighbors_of
from aurel.pyg.knn import knn, knn_graph
from aurel.pyg.on_edges import OnEdges
from aurel.pyg.ragged import Ragged

__all__ = [
    "DynamicEdgeConv",
    "OnEdges",
    "Ragged",
    "complete_graph",
    "edge_index_of",
    "from_batch",
    "from_hetero",
    "knn",
    "knn_graph",
    "neighbors_of",
    "to_batch",
    "to_hetero",
]
