"""The layers on graphs of any size, and the conversions, for users of PyTorch Geometric."""

from __future__ import annotations

from aurel.pyg.convert import from_batch, from_hetero, to_batch, to_hetero
from aurel.pyg.edges import complete_graph, edge_index_of, neighbors_of
from aurel.pyg.ragged import OnEdges, Ragged

__all__ = [
    "OnEdges",
    "Ragged",
    "complete_graph",
    "edge_index_of",
    "from_batch",
    "from_hetero",
    "neighbors_of",
    "to_batch",
    "to_hetero",
]
