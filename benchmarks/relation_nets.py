"""Nets of the benchmark of relations: a linear map of each AU's own, a layer, a read-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from relation_evidence import WIDTH
from relation_labels import LabelTable
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.facs import AUSet, region_plan
from aurel.graph import RelationGraph
from aurel.layers import (
    CrossRegionGAT,
    GatedEdgeGCN,
    MultiDimensionalEdges,
    NodeTransformer,
    PairMessages,
    PairwiseInference,
    SelfAdjustingGCN,
    TopKGraphConv,
)

CHANNELS = 32
TOKENS = 4
NEIGHBORS = 4
Graph = Tensor | None


class Net(nn.Module):
    """Logits (B, N) from evidence (B, N, 16): a map of each AU, a relation layer, a read-out.

    Without a layer, no evidence of an AU reaches the logit of another.

    Args:
        aus: the AUs, N of them.
        layer: maps nodes (B, N, C) to nodes and the graph, (N, N) or (B, N, N), if it has one.
        tokens: number D of tokens of each node; where it is more than 1, nodes are (B, N, D, C).
    """

    def __init__(self, aus: AUSet, layer: nn.Module | None = None, tokens: int = 1) -> None:
        super().__init__()
        self.tokens = tokens
        self.enter = PerAULinear(len(aus), WIDTH, tokens * CHANNELS)
        self.layer = layer
        self.read = PerAULinear(len(aus), CHANNELS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Graph]:
        """Return logits (B, N), and the graph of the layer if it has one."""
        nodes, graph = self.enter(x), None
        if self.tokens > 1:
            nodes = nodes.unflatten(2, (self.tokens, CHANNELS))
        if self.layer is not None:
            nodes, graph = self.layer(nodes)
        return self.read(nodes).squeeze(2), graph

    def scores(self, x: Tensor) -> Tensor:
        """Return what ranks the labels of each AU, (B, N)."""
        return self(x)[0]

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, 0-d."""
        return F.binary_cross_entropy_with_logits(self(x)[0], labels)

    def graph(self, x: Tensor) -> Graph:
        """Return the graph, its mean over the batch, (N, N)."""
        graph = self(x)[1]
        return graph.mean(0) if graph is not None and graph.ndim == 3 else graph

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return parameters with their learning rates."""
        return [{"params": list(self.parameters()), "lr": lr}]


class PerAULinear(nn.Module):
    """An affine map of its own for each AU, (B, N, in) to (B, N, out)."""

    def __init__(self, num_aus: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_aus, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(num_aus, outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bni,nio->bno", x, self.weight) + self.bias


class WithGraph(nn.Module):
    """A layer of nodes; in evaluation, with the mean of the graphs that it builds."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, nodes: Tensor) -> tuple[Tensor, Graph]:
        if self.training:
            return self.layer(nodes), None
        out, graphs = self.layer(nodes, return_graph=True)
        return out, mean_adjacency(graphs)


def mean_adjacency(graphs: RelationGraph | tuple[RelationGraph, ...]) -> Tensor:
    """Return the mean of the dense adjacencies, (B, N, N)."""
    graphs = (graphs,) if isinstance(graphs, RelationGraph) else graphs
    return torch.stack([graph.adjacency() for graph in graphs]).mean(0)


class WithoutGraph(nn.Module):
    """A layer of nodes that gives no graph."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, nodes: Tensor) -> tuple[Tensor, Graph]:
        return self.layer(nodes), None


class GatedEdges(nn.Module):
    """`GatedEdgeGCN` on edges that start from one learned tensor, (N, N, C)."""

    def __init__(self, num_aus: int) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.randn(num_aus, num_aus, CHANNELS))
        self.gcn = GatedEdgeGCN(CHANNELS, num_aus)

    def forward(self, nodes: Tensor) -> tuple[Tensor, Graph]:
        return gated(self.gcn, nodes, self.edges.expand(len(nodes), -1, -1, -1))


class GatedEdgesOfTokens(nn.Module):
    """`MultiDimensionalEdges`, then `GatedEdgeGCN`; the face is the mean of the AUs' tokens."""

    def __init__(self, num_aus: int) -> None:
        super().__init__()
        self.edges = MultiDimensionalEdges(CHANNELS, num_aus)
        self.gcn = GatedEdgeGCN(CHANNELS, num_aus)

    def forward(self, nodes: Tensor) -> tuple[Tensor, Graph]:
        return gated(self.gcn, nodes.mean(2), self.edges(nodes, nodes.mean(1)))


def gated(gcn: GatedEdgeGCN, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Graph]:
    """Return the nodes (B, N, C) and, in evaluation, the gates (B, N, N)."""
    if gcn.training:
        return gcn(nodes, edges)[0], None
    (out, _), graph = gcn(nodes, edges, return_graph=True)
    return out, graph.adjacency()


class ActiveAttention(nn.Module):
    """`CrossRegionGAT` whose sources are AUs that a read-out of their own finds active."""

    def __init__(self, aus: AUSet) -> None:
        super().__init__()
        self.first = PerAULinear(len(aus), CHANNELS, 1)
        self.attention = CrossRegionGAT(CHANNELS, region_plan(aus).group_of, heads=4)

    def forward(self, nodes: Tensor) -> tuple[Tensor, Graph]:
        active = self.first(nodes).squeeze(2)
        if self.training:
            return self.attention(nodes, active), None
        out, graph = self.attention(nodes, active, return_graph=True)
        return out, graph.adjacency()


class ActiveAttentionNet(Net):
    """Trains the read-out before the attention, which gets no gradient from it, as well."""

    layer: ActiveAttention

    def __init__(self, aus: AUSet) -> None:
        super().__init__(aus, ActiveAttention(aus))

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of both cross-entropies."""
        first = self.layer.first(self.enter(x)).squeeze(2)
        return super().loss(x, labels) + F.binary_cross_entropy_with_logits(first, labels)


class AllEvidence(Net):
    """A network of two hidden layers on the evidence of all AUs at once."""

    def __init__(self, aus: AUSet, hidden: int = 256) -> None:
        super().__init__(aus)
        del self.enter, self.read
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(len(aus) * WIDTH, hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, len(aus)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Graph]:
        return self.net(x), None


class Coupled(Net):
    """`PairwiseInference` behind the net without a relation layer, by the joint likelihood.

    The pairwise model starts from that of the training labels and learns ten times as fast.

    Args:
        aus: the AUs.
        train: training labels, (M, N).
    """

    def __init__(self, aus: AUSet, train: Tensor) -> None:
        super().__init__(aus)
        self.coupling = PairwiseInference(len(aus))
        self.coupling.fit_labels(train)

    def scores(self, x: Tensor) -> Tensor:
        """Return the logits of the marginals, (B, N)."""
        return self.coupling(self(x)[0])

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the mean negative logarithm of the joint probability of a frame's labels."""
        return self.coupling.nll(self(x)[0], labels)

    def graph(self, x: Tensor) -> Graph:
        """Return the absolute couplings, (N, N)."""
        return self.coupling.graph().adjacency()[0].abs()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return parameters with their learning rates."""
        fast = self.coupling.parameter_groups(lr)
        coupled = {id(parameter) for group in fast for parameter in group["params"]}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in coupled]
        return [{"params": rest, "lr": lr}, *fast]


def reference_couplings(table: LabelTable) -> Tensor:
    """Return the couplings of the labels, fitted where the table does not give them, (N, N)."""
    if table.couplings is not None:
        return table.couplings
    layer = PairwiseInference(len(table.aus))
    layer.fit_labels(table.train)
    return layer.graph().adjacency()[0].detach()


def self_adjusting() -> nn.Module:
    """Return two blocks on the nearest nodes."""
    return SelfAdjustingGCN(CHANNELS, CHANNELS, dims=(CHANNELS,), depths=(2,), k=NEIGHBORS)


def encoder() -> nn.Module:
    """Return two blocks of torch's own transformer."""
    block = nn.TransformerEncoderLayer(
        CHANNELS, 4, 4 * CHANNELS, dropout=0.0, activation="gelu", batch_first=True
    )
    return nn.TransformerEncoder(block, 2, enable_nested_tensor=False)


Build = Callable[[AUSet, Tensor], Net]
LAYERS: dict[str, Build] = {
    "no relation layer": lambda aus, _: Net(aus),
    "TopKGraphConv": lambda aus, _: Net(
        aus, WithGraph(TopKGraphConv(CHANNELS, len(aus), min(NEIGHBORS, len(aus))))
    ),
    "SelfAdjustingGCN": lambda aus, _: Net(aus, WithGraph(self_adjusting())),
    "GatedEdgeGCN": lambda aus, _: Net(aus, GatedEdges(len(aus))),
    "GatedEdgeGCN with MultiDimensionalEdges": lambda aus, _: Net(
        aus, GatedEdgesOfTokens(len(aus)), TOKENS
    ),
    "CrossRegionGAT, active_cross_region": lambda aus, _: ActiveAttentionNet(aus),
    "CrossRegionGAT, fully_connected": lambda aus, _: Net(
        aus, WithGraph(CrossRegionGAT(CHANNELS, range(len(aus)), 4, "fully_connected"))
    ),
    "NodeTransformer": lambda aus, _: Net(
        aus, WithGraph(NodeTransformer(CHANNELS, CHANNELS, depth=2, heads=4, head_dim=8))
    ),
    "torch TransformerEncoder": lambda aus, _: Net(aus, WithoutGraph(encoder())),
    "PairMessages": lambda aus, _: Net(aus, WithGraph(PairMessages(CHANNELS, len(aus)))),
    "MLP of all evidence": lambda aus, _: AllEvidence(aus),
    "PairwiseInference": Coupled,
}
"""Nets by name, from the AUs and the training labels."""
