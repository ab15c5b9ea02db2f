"""The relation layers on graphs of any size, in the form of PyTorch Geometric."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.cross_attention import CrossAttention
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.layers.gated_edge_gcn import GatedEdgeGCN
from aurel.layers.graph_convs import NeighborGraphConv
from aurel.layers.masked_norm import mask_of_rows
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.node_transformer import NodeTransformer
from aurel.layers.self_adjusting_gcn import SelfAdjustingGCN
from aurel.ops.arguments import check_shape
from aurel.ops.ragged_knn_graph import check_batch, check_batch_values, ragged_knn_graph
from aurel.pyg.edges import complete_graph, edge_index_of
from aurel.pyg.layout import Form, Layout, lay_out

Edges = tuple[Tensor, Tensor]

# Inputs and outputs of a layer: rows for graphs, nodes or pairs of nodes. Others: nodes.
_FORMS: dict[type[nn.Module], tuple[tuple[Form, ...], tuple[Form, ...]]] = {
    AUSpecificFeatures: (("graph",), ("node",)),
    CrossAttention: (("node", "graph"), ("node",)),
    CrossRegionGAT: (("node", "node"), ("node",)),
    MultiDimensionalEdges: (("node", "graph"), ("pair",)),
    GatedEdgeGCN: (("node", "pair"), ("node", "pair")),
}
_NODES: tuple[tuple[Form, ...], tuple[Form, ...]] = (("node",), ("node",))


class Ragged(nn.Module):
    r"""Run a relation layer on graphs of any size: nodes (M, C) and the graph of each, (M,).

    Results, gradients and running statistics are those of the layer on a dense batch with a mask of
    the nodes that exist; the weights are those of the layer. In a graph with fewer than K nodes,
    all of them are neighbors of each node.

    The four convolutions over neighbor lists (`MaxRelativeGraphConv`, `EdgeGraphConv`,
    `GINGraphConv`, `SAGEGraphConv`) and `SelfAdjustingGCN` run without padding, as one large graph
    whose neighbors `ragged_knn_graph` finds; with ``aurel.use_backend("pyg")`` torch-cluster and
    torch-scatter compute them. `NodeTransformer` runs on graphs of about the same size at a time.
    Every other layer runs on a dense batch of the graphs that have nodes, for which "pyg" raises;
    so does `SelfAdjustingGCN` on a fixed graph, or while it drops paths.

    A layer with parameters or edges for each node (`num_nodes`, `regions` or a fixed graph)
    requires `slot`, which of these nodes each node is.

    ==========================  ==========================  =========================  ============
    layer                       x                           other                      returns
    ==========================  ==========================  =========================  ============
    AUSpecificFeatures          tokens (B, D, C)                                       (M, D, C')
    CrossAttention              (M, C)                      face tokens (B, D, C)      (M, C)
    CrossRegionGAT              (M, C)                      active (M,)                (M, C)
    MultiDimensionalEdges       node tokens (M, D, C)       face tokens (B, D, C)      (E, C)
    GatedEdgeGCN                (M, C)                      edges (E, C)               both
    all others                  (M, C)                                                 (M, ...)
    ==========================  ==========================  =========================  ============

    with the E pairs of nodes in the order of `complete_graph`. `TokenFusion`, which takes four
    inputs, is not supported, nor are the layers without a mask, which `aurel.layers` lists.

    Args:
        layer: a layer of `aurel.layers` that takes a mask; or another that takes nodes and a mask.

    Raises:
        ValueError: the layer takes no mask, or other inputs than those in the table; or it treats
            all nodes alike but for its node embedding.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        parameters = inspect.signature(layer.forward).parameters
        if "mask" not in parameters:
            raise ValueError(
                f"layer must take a mask of the nodes that exist, got {type(layer).__name__}"
            )
        embedded = getattr(layer, "embedding", None) is not None
        if embedded and isinstance(layer, NeighborGraphConv | SelfAdjustingGCN):
            raise ValueError(
                f"layer must have no node embedding, got {type(layer).__name__} with one: add it "
                "to the nodes before"
            )
        self.layer = layer
        self.inputs, self.outputs = _FORMS.get(type(layer), _NODES)
        self.required = sum(
            p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values()
        )
        if self.required > len(self.inputs):
            names = ", ".join(known.__name__ for known in _FORMS)
            raise ValueError(
                f"layer must be one of {names} or take nodes and a mask alone, got "
                f"{type(layer).__name__}"
            )

    def forward(
        self,
        x: Tensor,
        batch: Tensor | None = None,
        slot: Tensor | None = None,
        other: Tensor | None = None,
        *,
        return_graph: bool = False,
    ) -> Any:
        r"""Return the result of the layer.

        Args:
            x: the first input of the layer, see the table.
            batch: (M,) int64, the graph of each node, sorted; None for one graph.
            slot: (M,) int64, which of the layer's nodes each node is; may be None where all
                graphs have all nodes in their order, or where the layer treats them alike.
            other: the other input of the layer, see the table.
            return_graph: return the graph as well: `edge_index` (2, E) from source to target,
                and the weights (E,). A tuple of these if the layer builds several.

        Returns:
            The result of the layer, one row for each node or pair of nodes.

        Raises:
            ValueError: an argument has the wrong shape, dtype or value.
        """
        name = type(self.layer).__name__
        if other is not None and len(self.inputs) == 1:
            raise ValueError(f"other must be None for {name}, got {type(other).__name__}")
        inputs = [x] if other is None else [x, other]
        if len(inputs) < self.required:
            raise ValueError(f"other must be a tensor for {name}, got None")
        if batch is None:
            if self.inputs[0] == "graph":
                raise ValueError("batch must be a tensor for a layer of tokens, got None")
            batch = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if isinstance(self.layer, NeighborGraphConv):
            return self._convolve(self.layer, x, batch, return_graph)
        if isinstance(self.layer, SelfAdjustingGCN) and _needs_no_padding(self.layer):
            return self._self_adjust(self.layer, x, batch, return_graph)
        check_batch(batch, x if self.inputs[0] == "node" else batch)
        check_batch_values(batch)
        if isinstance(self.layer, NodeTransformer):
            return self._by_size(x, batch, return_graph)
        return self._on_dense(inputs, batch, slot, return_graph)

    def _on_dense(
        self, inputs: list[Tensor], batch: Tensor, slot: Tensor | None, return_graph: bool
    ) -> Any:
        layout, inputs = self._lay_out(inputs, batch, slot)
        dense = map(layout.pad, inputs, self.inputs)
        options = {"return_graph": True} if return_graph else {}
        result = self.layer(*dense, mask=layout.mask, **options)
        result, graph = result if return_graph else (result, None)
        outputs = result if isinstance(result, tuple) else (result,)
        out = tuple(map(layout.unpad, outputs, self.outputs))
        rows = out if len(out) > 1 else out[0]
        if graph is None:
            return rows
        if isinstance(graph, RelationGraph):
            return rows, _edges(graph, layout)
        return rows, tuple(_edges(each, layout) for each in graph)

    def _by_size(self, x: Tensor, batch: Tensor, return_graph: bool) -> Any:
        """Return the result of a layer without batch statistics, for graphs of similar sizes."""
        sizes = batch.unique_consecutive(return_counts=True)[1]
        # frexp's exponent grows where the size reaches a power of two.
        width = sizes.double().frexp().exponent.repeat_interleave(sizes, output_size=len(batch))
        groups = [(width == w).nonzero()[:, 0] for w in width.unique()]
        if len(groups) < 2:
            return self._on_dense([x], batch, None, return_graph)
        order = torch.cat(groups).argsort()
        results = [self._on_dense([x[nodes]], batch[nodes], None, return_graph) for nodes in groups]
        if not return_graph:
            return torch.cat(results)[order]
        out = torch.cat([rows for rows, _ in results])[order]
        blocks = zip(*(graphs for _, graphs in results), strict=True)
        return out, tuple(_concatenated(block, groups) for block in blocks)

    def _convolve(
        self, layer: NeighborGraphConv, x: Tensor, batch: Tensor, return_graph: bool
    ) -> Any:
        check_shape("x", x, "M C", C=layer.in_channels)
        neighbors = ragged_knn_graph(x, batch, layer.k, layer.metric, loop=layer.loop)
        out = _one_graph(layer, x, neighbors)
        return (out, _listed(neighbors, x)) if return_graph else out

    def _self_adjust(
        self, layer: SelfAdjustingGCN, x: Tensor, batch: Tensor, return_graph: bool
    ) -> Any:
        check_shape("x", x, "M C", C=layer.in_channels)
        check_batch(batch, x)

        def find_neighbors(x: Tensor, mask: Tensor | None) -> Tensor:
            if layer.graph == "self":
                return layer.block_neighbors(x, mask)
            return ragged_knn_graph(x[0], batch, layer.k, layer.metric)[None]

        out, lists = layer.convolve(x[None], _mask_of_one(layer, x), find_neighbors)
        graphs = tuple(_listed(neighbors[0], x) for neighbors in lists)
        return (out[0], graphs) if return_graph else out[0]

    def _lay_out(
        self, inputs: list[Tensor], batch: Tensor, slot: Tensor | None
    ) -> tuple[Layout, list[Tensor]]:
        """Return slots in a dense batch of the graphs that have nodes, and the inputs of these."""
        numbers, graph = batch.unique_consecutive(return_inverse=True)
        present = []
        for form, part in zip(self.inputs, inputs, strict=False):
            if form == "node":
                check_batch(batch, part)
            elif form == "graph":
                if len(numbers) and int(numbers[-1]) >= len(part):
                    raise ValueError(
                        f"batch must number {len(part)} graphs, got {int(numbers[-1]) + 1}"
                    )
                if len(numbers) < len(part):
                    part = part[numbers]
            present.append(part)
        layout = lay_out(
            graph,
            slot,
            num_slots=_num_slots(self.layer),
            least_slots=getattr(self.layer, "k", 0),
        )
        return layout, present


def _one_graph(layer: nn.Module, x: Tensor, neighbors: Tensor) -> Tensor:
    """Return the nodes, convolved as one graph."""
    return layer(x[None], _mask_of_one(layer, x), neighbors=neighbors[None])[0]


def _mask_of_one(layer: nn.Module, x: Tensor) -> Tensor | None:
    """Return the mask of all nodes as one graph, or None, see `mask_of_rows`."""
    mask = mask_of_rows(layer, x)
    return mask if mask is None else mask[None]


def _listed(neighbors: Tensor, x: Tensor) -> Edges:
    edge_index = edge_index_of(neighbors)
    return edge_index, x.new_ones(edge_index.shape[1])


def _concatenated(parts: Sequence[Edges], groups: list[Tensor]) -> Edges:
    """Return the edges of all groups by target, `groups` holding the nodes of each."""
    pairs = zip(groups, parts, strict=True)
    edges = torch.cat([nodes[edge_index] for nodes, (edge_index, _) in pairs], dim=1)
    order = edges[1].argsort(stable=True)
    return edges[:, order], torch.cat([weights for _, weights in parts])[order]


def _needs_no_padding(layer: SelfAdjustingGCN) -> bool:
    """Return whether the layer treats all nodes alike, and no graph as a whole."""
    return layer.graph != "fixed" and not (layer.training and layer.drop_path > 0)


def _num_slots(layer: nn.Module) -> int | None:
    """Return the number of nodes that the layer distinguishes, None if it treats all alike."""
    if isinstance(layer, CrossRegionGAT):
        return len(layer.regions)
    if isinstance(layer, SelfAdjustingGCN):
        return None if layer.neighbors is None else len(layer.neighbors)
    return getattr(layer, "num_nodes", None)


def _edges(graph: RelationGraph, layout: Layout) -> Edges:
    present = layout.unpad(graph.edges(), "pair")
    weights = layout.unpad(graph.adjacency(), "pair")
    return complete_graph(layout.batch)[:, present], weights[present]
