"""Graph convolution that is gated by edge features and updates nodes and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.graph_batch_norm import GraphBatchNorm
from aurel.layers.node_embedding import node_embedding_of
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_choice, check_mask, check_shape
from aurel.ops.edge_update import edge_update
from aurel.ops.gated_edge_aggregate import gated_edge_aggregate
from aurel.ops.masks import pair_mask

Residual = Literal["inside", "outside"]


class GatedEdgeLayer(nn.Module):
    r"""Update edges from their ends, then nodes from their gated messages.

    .. math::
        e'_{ij} &= e_{ij} + \mathrm{ReLU}(\mathrm{BN}(A x_i + B x_j + E e_{ij})) \\
        m_i &= U x_i + \tfrac1N \sum_j g_{ij} \odot V x_j, \qquad
            g_{ij} = \underset{j}{\mathrm{softmax}}\; \sigma(e'_{ij}) \\
        x'_i &= \mathrm{ReLU}(x_i + \mathrm{BN}(m_i)) \quad\text{or}\quad
            x_i + \mathrm{ReLU}(\mathrm{BN}(m_i))

    Args:
        channels: width C of nodes and edges.
        num_nodes: number N of nodes.
        residual: "inside" the ReLU (ME-GraphAU) or "outside" (OpenGraphAU).
        divide_messages: divide the gated sum by N, as the equation says.
    """

    def __init__(
        self,
        channels: int,
        num_nodes: int,
        residual: Residual = "inside",
        *,
        divide_messages: bool = True,
    ) -> None:
        super().__init__()
        check_choice("residual", residual, ("inside", "outside"))
        self.channels = channels
        self.residual = residual
        self.divide_messages = divide_messages
        self.node = nn.Linear(channels, channels, bias=False)
        self.message = nn.Linear(channels, channels, bias=False)
        self.target = nn.Linear(channels, channels, bias=False)
        self.source = nn.Linear(channels, channels, bias=False)
        self.edge = nn.Linear(channels, channels, bias=False)
        self.node_norm = GraphBatchNorm((num_nodes,))
        self.edge_norm = GraphBatchNorm((num_nodes, num_nodes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights of variance 2 / C."""
        for linear in (self.node, self.message, self.target, self.source, self.edge):
            nn.init.normal_(linear.weight, std=(2.0 / self.channels) ** 0.5)
        self.node_norm.reset_parameters()
        self.edge_norm.reset_parameters()

    def forward(
        self, x: Tensor, edges: Tensor, mask: Tensor | None, projected: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return x' and e' for x (B, N, C), edges (B, N, N, C) and E e (B, N, N, C) or None."""
        linears = (self.node, self.message, self.target, self.source)
        if all(is_plain(linear, nn.Linear) for linear in linears):
            weight = torch.cat([linear.weight for linear in linears])
            node, message, target, source = F.linear(x, weight).chunk(4, -1)
        else:
            node, message, target, source = (linear(x) for linear in linears)
        projected = self.edge(edges) if projected is None else projected
        edges = self._update(edges, projected, target, source, mask)
        aggregate = gated_edge_aggregate(edges, message, mask=mask)
        if self.divide_messages:
            count = x.shape[1] if mask is None else mask.sum(1).clamp_min(1)[:, None, None]
            aggregate = aggregate / count
        update = self.node_norm(node + aggregate, mask)
        x = F.relu(x + update) if self.residual == "inside" else x + F.relu(update)
        return x, edges

    if TYPE_CHECKING:
        __call__ = forward

    def _update(
        self,
        edges: Tensor,
        projected: Tensor,
        target: Tensor,
        source: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Return e', (B, N, N, C)."""
        images, _, _, channels = edges.shape
        norm = self.edge_norm
        pairs = None if mask is None else pair_mask(mask)
        if not is_plain(norm, GraphBatchNorm) or norm.is_synchronized():
            update = projected + target.unsqueeze(2) + source.unsqueeze(1)
            return edges + F.relu(norm(update, pairs))
        new, mean, var = edge_update(
            edges,
            projected,
            target,
            source,
            norm.weight,
            norm.bias,
            norm.fixed_statistics(images),
            eps=norm.eps,
            mask=mask,
        )
        norm.update_statistics(mean, var, images, channels, pairs)
        return new

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.node_norm.entries[0]}, residual={self.residual!r}"


class GatedEdgeGCN(nn.Module):
    r"""Stack gated edge layers (see `GatedEdgeLayer`) that share no weights.

    The edges differ by pair, but a gate is a softmax of sigmoids: at most e times another, so that
    the gates are nearly uniform, and messages are divided by N. With BP4D in
    ``benchmarks/relations.py`` the layer closes 2 % of what exact inference gains on covered AUs,
    4 % with edges of `MultiDimensionalEdges`; see `divide_messages` and `node_embedding`.

    Args:
        channels: width C of nodes and edges.
        num_nodes: number N of nodes.
        num_layers: number of layers.
        residual: "inside" the ReLU (ME-GraphAU) or "outside" (OpenGraphAU).
        divide_messages: divide the gated sums by N, as published. The gates of a node already sum
            to one, so that with N = 12 a message starts twelve times weaker than the node's own
            term; False leaves the division out.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU). The division by N after the
    softmax, and the softmax over sigmoids, are in the authors' code.
    """

    def __init__(
        self,
        channels: int,
        num_nodes: int,
        num_layers: int = 2,
        residual: Residual = "inside",
        *,
        divide_messages: bool = True,
        node_embedding: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        self.channels = channels
        self.num_nodes = num_nodes
        self.layers = nn.ModuleList(
            GatedEdgeLayer(channels, num_nodes, residual, divide_messages=divide_messages)
            for _ in range(num_layers)
        )
        self.embedding = node_embedding_of(node_embedding, channels, num_nodes)

    def reset_parameters(self) -> None:
        """Initialize all layers."""
        for layer in self.layers:
            assert isinstance(layer, GatedEdgeLayer)
            layer.reset_parameters()
        if self.embedding is not None:
            self.embedding.reset_parameters()

    def edge_weight(self) -> Tensor | None:
        """Return the matrix by which the first layer multiplies the edges, (C, C).

        None where the layer must be called, because its map of the edges is replaced or hooked.
        """
        first = self.layers[0]
        if isinstance(first, GatedEdgeLayer) and is_plain(first.edge, nn.Linear):
            return first.edge.weight
        return None

    @overload
    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        mask: Tensor | None = None,
        projected: Tensor | None = None,
        *,
        return_graph: Literal[False] = False,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        mask: Tensor | None = None,
        projected: Tensor | None = None,
        *,
        return_graph: Literal[True],
    ) -> tuple[tuple[Tensor, Tensor], RelationGraph]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        mask: Tensor | None = None,
        projected: Tensor | None = None,
        *,
        return_graph: bool,
    ) -> tuple[Tensor, Tensor] | tuple[tuple[Tensor, Tensor], RelationGraph]: ...

    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        mask: Tensor | None = None,
        projected: Tensor | None = None,
        *,
        return_graph: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[tuple[Tensor, Tensor], RelationGraph]:
        """Return updated nodes and edges.

        Args:
            x: (B, N, C) nodes.
            edges: (B, N, N, C), target i before source j.
            mask: (B, N) bool, True where the node exists. N in the equations is then the number of
                nodes that exist; absent nodes and their edges give zeros.
            projected: the edges times `edge_weight`, (B, N, N, C), as
                `MultiDimensionalEdges.with_projection` gives; None to compute it here.
            return_graph: also return the graph: its weights, (B, N, N), are the last layer's gates,
                averaged over channels, so that each row sums to one; its edge features the edges.

        Returns:
            x (B, N, C) and edges (B, N, N, C); with `return_graph` this pair and the graph.

        Raises:
            ValueError: a shape does not fit.
        """
        check_shape("x", x, "B N C", N=self.num_nodes, C=self.channels)
        check_mask(mask, x)
        sizes = {"B": x.shape[0], "N": self.num_nodes, "C": self.channels}
        check_shape("edges", edges, "B N N C", **sizes)
        if projected is not None:
            check_shape("projected", projected, "B N N C", **sizes)
        if mask is not None:
            pairs = pair_mask(mask).unsqueeze(-1)
            x, edges = x.where(mask.unsqueeze(-1), 0.0), edges.where(pairs, 0.0)
        if self.embedding is not None:
            x = self.embedding(x, mask)
        for layer in self.layers:
            x, edges = layer(x, edges, mask, projected)
            projected = None
        if not return_graph:
            return x, edges
        return (x, edges), RelationGraph(weights=_gates(edges, mask), edge_features=edges)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}"


def _gates(edges: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over channels of the gates, (B, N, N)."""
    gates = edges.to(torch.promote_types(edges.dtype, torch.float32)).sigmoid()
    if mask is None:
        return gates.softmax(2).mean(-1)
    gates = gates.masked_fill(~mask[:, None, :, None], -torch.inf).softmax(2).mean(-1)
    return gates.where(pair_mask(mask), 0.0)
