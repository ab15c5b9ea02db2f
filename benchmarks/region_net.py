"""A small net with one window of the face for each AU, and a relation layer between the AUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.facs import INNER_EYE_CORNERS, AUSet, au_center_rules
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.layers.gated_edge_gcn import GatedEdgeGCN, GatedEdgeLayer
from aurel.layers.self_adjusting_gcn import SelfAdjustingGCN
from aurel.layers.topk_graph_conv import TopKGraphConv

Graph = Literal["full", "self"]
WIDTH = 24


class RegionNet(nn.Module):
    """Local AU logits, plus a correction that a relation layer computes from all AU nodes.

    A shallow trunk (stride 4, receptive field 7 pixels) gives a feature map; each AU reads the
    4 x 4 cells around its two centres, through weights of its own, into a node of 24 numbers. What
    lies outside these windows can reach a logit through the relation layer alone.

    Args:
        aus: the AUs.
        landmarks: mean landmarks of the training faces, (49, 2) in pixels.
        size: pixels a side of the images.
        relation: a layer of `RELATIONS`, or None for local logits alone.
    """

    cells: Tensor

    def __init__(
        self,
        aus: AUSet,
        landmarks: Tensor,
        size: int,
        relation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_convolution(3, 16, 3, 2), *_convolution(16, 32, 3, 2), *_convolution(32, 48, 1, 1),
            nn.Conv2d(48, 12, 1), nn.ReLU(),
        )  # fmt: skip
        self.register_buffer("cells", au_cells(aus, landmarks, size))
        fan = 12 * self.cells.shape[1]
        self.local = nn.Parameter(torch.randn(len(aus), fan, WIDTH) * (2 / fan) ** 0.5)
        self.local_bias = nn.Parameter(torch.zeros(len(aus), WIDTH))
        self.dropout = nn.Dropout(0.2)
        self.read = AUReadout(len(aus), 0.1)
        self.relation = relation
        self.identity = nn.Parameter(torch.randn(len(aus), WIDTH) * 0.1)
        self.correct = AUReadout(len(aus), 0.0)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, N) of images (B, 3, S, S)."""
        features = self.trunk(images).flatten(2)[:, :, self.cells]
        windows = self.dropout(features.transpose(1, 2).flatten(2))
        nodes = F.relu(torch.einsum("bnk,nkd->bnd", windows, self.local) + self.local_bias)
        logits = self.read(nodes)
        if self.relation is None:
            return logits
        return logits + self.correct(self.relation(nodes + self.identity))


class AUReadout(nn.Module):
    """One linear output for each AU: (B, N, C) to (B, N)."""

    def __init__(self, num_aus: int, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_aus, WIDTH) * spread)
        self.bias = nn.Parameter(torch.zeros(num_aus))

    def forward(self, nodes: Tensor) -> Tensor:
        return (nodes * self.weight).sum(-1) + self.bias


class Attention(nn.Module):
    """Two rounds of graph attention with four heads."""

    adjacency: Tensor

    def __init__(self, num_aus: int, graph: Graph) -> None:
        super().__init__()
        nodes = range(num_aus)
        self.first = CrossRegionGAT(WIDTH, nodes, heads=4, edges="fully_connected")
        self.second = CrossRegionGAT(WIDTH, nodes, heads=4, edges="fully_connected")
        edges = torch.eye(num_aus) if graph == "self" else torch.ones(num_aus, num_aus)
        self.register_buffer("adjacency", edges.bool())

    def forward(self, nodes: Tensor) -> Tensor:
        nodes, _ = self.first.attend(nodes, self.adjacency)
        nodes, _ = self.second.attend(nodes, self.adjacency)
        return nodes


class GatedEdges(nn.Module):
    """Two rounds of gated graph convolution; the edges start from one learned tensor.

    Args:
        num_aus: nodes.
        graph: "full" or "self".
        gain: factor on the initial weights of the messages.
    """

    def __init__(self, num_aus: int, graph: Graph, gain: float = 1.0) -> None:
        super().__init__()
        self.graph = graph
        self.edges = nn.Parameter(torch.randn(num_aus, num_aus, WIDTH) * 0.1)
        self.gcn = GatedEdgeGCN(WIDTH, num_aus)
        for module in self.gcn.modules():
            if isinstance(module, GatedEdgeLayer):
                module.message.weight.data *= gain

    def forward(self, nodes: Tensor) -> Tensor:
        if self.graph == "full":
            return self.gcn(nodes, self.edges.expand(len(nodes), -1, -1, -1))[0]
        for layer in self.gcn.layers:
            assert isinstance(layer, GatedEdgeLayer)
            # The gate of a single neighbour is 1, whatever its edge.
            update = layer.node(nodes) + layer.message(nodes)
            nodes = F.relu(nodes + layer.node_norm(update))
        return nodes


class TopK(nn.Module):
    """Two rounds of convolution over the four nodes with the highest dot product."""

    def __init__(self, num_aus: int, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.first = TopKGraphConv(WIDTH, num_aus, k=4)
        self.second = TopKGraphConv(WIDTH, num_aus, k=4)

    def forward(self, nodes: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            if self.graph == "full":
                nodes = layer(nodes)
            else:
                values, own = layer.project(nodes).chunk(2, -1)
                nodes = F.relu(nodes + layer.norm(values + own))
        return nodes


def self_adjusting(num_aus: int, graph: Graph) -> nn.Module:
    """Two blocks that listen to the nine nearest nodes, by the largest difference."""
    neighbours = "self" if graph == "self" else "knn"
    return SelfAdjustingGCN(WIDTH, WIDTH, dims=(WIDTH,), depths=(2,), k=9, graph=neighbours)


RELATIONS: dict[str, Callable[[int, Graph], nn.Module]] = {
    "attention": Attention,
    "top-k": TopK,
    "self-adjusting": self_adjusting,
    "gated edges": GatedEdges,
    "gated edges, messages x N at first": lambda n, graph: GatedEdges(n, graph, gain=n),
}
"""Relation layers (B, N, C) to (B, N, C); in the graph "self" no node hears another."""


def au_cells(aus: AUSet, landmarks: Tensor, size: int, stride: int = 4, side: int = 4) -> Tensor:
    """Return the cells of the feature map that each AU reads, (N, 2 side^2)."""
    rules = au_center_rules(aus)
    left, right = (landmarks[point] for point in INNER_EYE_CORNERS)
    distance = (right - left).norm()
    cells_across = size // stride
    reach = torch.arange(side)
    cells = []
    for nodes in rules.au_nodes:
        own = []
        for node in nodes:
            pair, which = divmod(node, 2)
            x, y = landmarks[rules.points[pair][which]].tolist()
            y += rules.offsets[pair] * float(distance)
            column, row = (
                min(max(round((v + 0.5) / stride - side / 2), 0), cells_across - side)
                for v in (x, y)
            )
            own.append(((row + reach)[:, None] * cells_across + column + reach).flatten())
        cells.append(torch.cat(own))
    return torch.stack(cells)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> Sequence[nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
