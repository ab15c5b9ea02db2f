"""A small net with one window of the face for each AU, and a relation layer between the AUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.facs import INNER_EYE_CORNERS, AUSet, au_center_rules
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.layers.gated_edge_gcn import GatedEdgeGCN

Graph = Literal["full", "self"]
WIDTH = 24


class Relation(nn.Module):
    """A relation layer and its ablation; (B, N, C) to (B, N, C)."""

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let nodes hear each other."""
        raise NotImplementedError

    def alone(self, nodes: Tensor) -> Tensor:
        """Return the same for every node alone in its graph."""
        return each_alone(self, nodes)


class RegionNet(nn.Module):
    """Local AU logits, plus a correction that a relation layer computes from all AU nodes.

    A shallow trunk (stride 4, receptive field 7 pixels) gives a feature map; each AU reads the
    4 x 4 cells around its two centres, through weights of its own, into a node of 24 numbers. What
    lies outside these windows can reach a logit through the relation layer alone.

    Args:
        aus: the AUs.
        landmarks: mean landmarks of the training faces, (49, 2) in pixels.
        size: pixels a side of the images.
        relation: the layer, or None for local logits alone.
        graph: "full" as the layer builds it, or "self": every node alone in a graph of its own,
            with the same parameters.
    """

    cells: Tensor

    def __init__(
        self,
        aus: AUSet,
        landmarks: Tensor,
        size: int,
        relation: Relation | None = None,
        graph: Graph = "full",
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
        self.graph = graph
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
        nodes = nodes + self.identity
        related = self.relation.alone(nodes) if self.graph == "self" else self.relation(nodes)
        return logits + self.correct(related)


class AUReadout(nn.Module):
    """One linear output for each AU: (B, N, C) to (B, N)."""

    def __init__(self, num_aus: int, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_aus, WIDTH) * spread)
        self.bias = nn.Parameter(torch.zeros(num_aus))

    def forward(self, nodes: Tensor) -> Tensor:
        return (nodes * self.weight).sum(-1) + self.bias


class Attention(Relation):
    """Two rounds of graph attention on the complete graph."""

    def __init__(self, num_aus: int) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(
            CrossRegionGAT(WIDTH, range(num_aus), heads=4, edges="fully_connected")
            for _ in range(2)
        )

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.rounds:
            nodes = layer(nodes, mask=mask)
        return nodes

    def alone(self, nodes: Tensor) -> Tensor:
        own = torch.eye(nodes.shape[1], dtype=torch.bool)
        for layer in self.rounds:
            nodes, _ = layer.attend(nodes, own)
        return nodes


class GatedEdges(Relation):
    """Two rounds of gated graph convolution; the edges start from one learned tensor.

    Args:
        num_aus: nodes.
        gain: factor on the initial weights of the messages.
    """

    def __init__(self, num_aus: int, gain: float = 1.0) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.randn(num_aus, num_aus, WIDTH) * 0.1)
        self.gcn = GatedEdgeGCN(WIDTH, num_aus)
        with torch.no_grad():
            for layer in self.gcn.layers:
                layer.message.weight *= gain

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.gcn(nodes, self.edges.expand(len(nodes), -1, -1, -1), mask=mask)[0]

    def alone(self, nodes: Tensor) -> Tensor:
        """The gate of a single neighbour is 1, whatever the edge."""
        for layer in self.gcn.layers:
            update = layer.node(nodes) + layer.message(nodes)
            nodes = F.relu(nodes + layer.node_norm(update))
        return nodes


def each_alone(layer: Relation, nodes: Tensor) -> Tensor:
    """Run a relation layer with every node alone in its graph; (B, N, C) to (B, N, C)."""
    batch, count, channels = nodes.shape
    own = torch.eye(count, dtype=torch.bool, device=nodes.device)
    copies = nodes.unsqueeze(1).expand(-1, count, -1, -1).reshape(-1, count, channels)
    out = layer(copies, mask=own.repeat(batch, 1)).view(batch, count, count, channels)
    return out.diagonal(dim1=1, dim2=2).transpose(1, 2)


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


RELATIONS: dict[str, Callable[[int], Relation]] = {
    "attention": Attention,
    "gated edges": GatedEdges,
    "gated edges, messages x N at first": lambda num_aus: GatedEdges(num_aus, num_aus),
}
