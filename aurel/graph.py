"""The graph that a relation layer built, for inspection and for other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class RelationGraph:
    r"""A batch of directed graphs over the same number of nodes.

    An edge j -> i carries the message of source j to target i.

    Args:
        neighbors: :math:`(B, N, K)` int64, the sources of target i, nearest first; -1 marks an
            empty slot. None for a dense graph.
        weights: edge weights, :math:`(B, N, K)` with `neighbors` or :math:`(B, N, N)` for a dense
            graph; row i holds those of the edges to target i. None means 1 for each edge.
        edge_features: :math:`(B, N, N, E)` or None.
    """

    neighbors: Tensor | None = None
    weights: Tensor | None = None
    edge_features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.neighbors is None and self.weights is None and self.edge_features is None:
            raise ValueError("neighbors, weights or edge_features must be given, got None for all")

    def adjacency(self) -> Tensor:
        """Return the dense weighted adjacency, (B, N, N): [b, i, j] weighs edge j -> i."""
        if self.neighbors is None:
            if self.weights is not None:
                return self.weights
            assert self.edge_features is not None
            return self.edge_features.new_ones(self.edge_features.shape[:3])
        if self.weights is None:
            return self._dense(torch.ones_like(self.neighbors, dtype=torch.get_default_dtype()))
        return self._dense(self.weights)

    def edges(self) -> Tensor:
        """Return which edges exist, bool (B, N, N); an edge from a neighbor may have weight 0."""
        if self.neighbors is None:
            return self.adjacency() != 0
        return self._dense(torch.ones_like(self.neighbors)) > 0

    def _dense(self, values: Tensor) -> Tensor:
        """Return (B, N, N) with the (B, N, K) `values` at the neighbors, 0 elsewhere."""
        assert self.neighbors is not None
        batch, nodes, _ = self.neighbors.shape
        present = values.where(self.neighbors >= 0, 0)
        dense = values.new_zeros(batch, nodes, nodes)
        return dense.scatter_add(2, self.neighbors.clamp_min(0), present)

    def to_networkx(self, sample: int = 0, names: Sequence[str] | None = None) -> networkx.DiGraph:
        """Return one graph of the batch as a `networkx.DiGraph` with edges j -> i and `weight`."""
        try:
            import networkx
        except ImportError as error:
            raise ImportError("to_networkx needs networkx: pip install 'aurel-au[viz]'") from error
        adjacency = self.adjacency()[sample].detach().cpu()
        nodes = adjacency.shape[0]
        labels = list(names) if names is not None else list(range(nodes))
        if len(labels) != nodes:
            raise ValueError(f"names must have {nodes} entries, got {len(labels)}")
        graph = networkx.DiGraph()
        graph.add_nodes_from(labels)
        for i, j in self.edges()[sample].nonzero().tolist():
            graph.add_edge(labels[j], labels[i], weight=float(adjacency[i, j]))
        return graph

    def to_pyg(self) -> Any:
        """Return a `torch_geometric.data.Batch` of B graphs with `edge_index` and `edge_weight`.

        Raises:
            ValueError: B is 0, for which there is no `Batch`.
        """
        try:
            from torch_geometric.data import Batch, Data
        except ImportError as error:
            raise ImportError(
                "to_pyg needs torch-geometric: pip install 'aurel-au[pyg]'"
            ) from error
        graphs = []
        for index, (adjacency, edges) in enumerate(
            zip(self.adjacency(), self.edges(), strict=True)
        ):
            target, source = edges.nonzero(as_tuple=True)
            data = Data(
                edge_index=torch.stack((source, target)),
                edge_weight=adjacency[target, source],
                num_nodes=adjacency.shape[0],
            )
            if self.edge_features is not None:
                data.edge_attr = self.edge_features[index][target, source]
            graphs.append(data)
        if not graphs:
            raise ValueError("B must be 1 or more for a Batch, got 0")
        return Batch.from_data_list(graphs)


pytree.register_dataclass(RelationGraph, serialized_type_name="aurel.graph.RelationGraph")
