"""Layers with loops over AUs, as published. Each takes its weights from a layer of aurel."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.channel_topology import ChannelTopology
from aurel.layers.landmark_roi import LandmarkROI
from aurel.layers.local_region_perception import LocalRegionPerception
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.per_au_classifier import PerAUClassifier
from aurel.layers.per_au_temporal_conv import PerAUTemporalConv
from aurel.layers.reference_edges import materialized_edges
from aurel.models.lrp_fgg import NodeClassifier


def copy_part(target: nn.Module, source: nn.Module, part: int, parts: int) -> nn.Module:
    """Copy the `part`-th of `parts` equal pieces of each tensor of `source` into `target`."""
    state = source.state_dict()
    target.load_state_dict(
        {key: value.chunk(parts)[part] if value.ndim else value for key, value in state.items()}
    )
    return target


class LinearBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bn(self.fc(tokens).mT).mT.relu()


class LoopedFeatures(nn.Module):
    """One linear block for each AU."""

    def __init__(self, layer: AUSpecificFeatures) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for node in range(layer.num_nodes):
            block = LinearBlock(layer.in_channels, layer.out_channels)
            copy_part(block.fc, layer.linear, node, layer.num_nodes)
            copy_part(block.bn, layer.norm, node, layer.num_nodes)
            self.blocks.append(block)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.stack([block(tokens) for block in self.blocks], dim=1)


class MaterializedEdges(nn.Module):
    """Edges computed from a tensor of the tokens of every pair."""

    def __init__(self, layer: MultiDimensionalEdges) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        edges = materialized_edges(self.layer, nodes, tokens).mean(2)
        return edges.unflatten(1, (self.layer.num_nodes, self.layer.num_nodes))


class LoopedTopology(nn.Module):
    """A relation for every channel and pair of columns, and the shared block once for each AU."""

    def __init__(self, layer: ChannelTopology) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        query, key = self.layer.query(x).mean(1), self.layer.key(x).mean(1)
        relation = self.layer.relation((query.unsqueeze(2) - key.unsqueeze(1)).tanh())
        mixed = torch.einsum("buvc,btvc->btuc", relation, self.layer.value(x))
        tokens = [mixed.mean((1, 2)).unsqueeze(1) for _ in range(self.layer.num_nodes)]
        return torch.cat([self.layer.view(token) for token in tokens], dim=1)


class LoopedTemporalConv(nn.Module):
    """One convolution along time for each AU."""

    def __init__(self, layer: PerAUTemporalConv) -> None:
        super().__init__()
        width, size = layer.channels, layer.kernel_size
        self.norm = layer.norm
        self.convs = nn.ModuleList(
            copy_part(
                nn.Conv1d(width, width, size, padding=size // 2, groups=width),
                layer.conv,
                node,
                layer.num_nodes,
            )
            for node in range(layer.num_nodes)
        )

    def forward(self, x: Tensor) -> Tensor:
        filtered = [conv(x[:, :, node].mT).mT for node, conv in enumerate(self.convs)]
        out = torch.stack(filtered, dim=2).flatten(0, 1)
        return self.norm(out).relu().unflatten(0, x.shape[:2])


class LoopedClassifier(nn.Module):
    """Convolutions and a linear map for each AU."""

    def __init__(self, layer: PerAUClassifier) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList()
        nodes = layer.num_nodes
        for node in range(nodes):
            channels, blocks = layer.in_channels, nn.Sequential()
            for width, block in zip(layer.widths, layer.blocks, strict=True):
                conv = nn.Conv2d(channels, width, 7, stride=2, padding=3)
                norm = nn.BatchNorm2d(width)
                copy_part(conv, block.get_submodule("0"), node, nodes)
                copy_part(norm, block.get_submodule("1"), node, nodes)
                blocks.extend([conv, norm, nn.ELU(inplace=True)])
                channels = width
            head = copy_part(nn.Conv2d(channels, 1, 1), layer.head, node, nodes)
            self.classifiers.append(nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), head))

    def forward(self, maps: Tensor) -> Tensor:
        each = zip(self.classifiers, maps.unbind(1), strict=True)
        return torch.cat([classifier(of_au).flatten(1) for classifier, of_au in each], dim=1)


class LoopedNodeClassifier(nn.Module):
    """One linear map for each AU."""

    def __init__(self, layer: NodeClassifier) -> None:
        super().__init__()
        nodes, channels = layer.weight.shape
        self.linears = nn.ModuleList(
            copy_part(nn.Linear(channels, 1), layer, node, nodes) for node in range(nodes)
        )

    def forward(self, nodes: Tensor) -> Tensor:
        each = zip(self.linears, nodes.unbind(1), strict=True)
        return torch.cat([linear(node) for linear, node in each], dim=1)


class LoopedPerception(nn.Module):
    """One attention network after the other."""

    def __init__(self, layer: LocalRegionPerception) -> None:
        super().__init__()
        hidden, count = layer.channels // layer.reduction, layer.networks
        self.networks = nn.ModuleList(
            nn.Sequential(
                copy_part(nn.Conv2d(layer.channels, hidden, 1), layer.reduce, network, count),
                nn.ReLU(),
                copy_part(nn.Conv2d(hidden, 1, 1), layer.score, network, count),
            )
            for network in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.cat([network(x) for network in self.networks], dim=1)
        return x * scores.amax(1, keepdim=True).sigmoid()


class LoopedROI(nn.Module):
    """Windows cut out one after the other, image by image."""

    def __init__(self, layer: LandmarkROI) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, feature_map: Tensor, landmarks: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        height, width = feature_map.shape[2:]
        side = self.layer.window(height, width)
        images = []
        for image, centers in zip(feature_map, self.layer.centers(landmarks.detach()), strict=True):
            crops = []
            for x, y in centers.tolist():
                row = _first(y, image_size[0], height, side)
                column = _first(x, image_size[1], width, side)
                crops.append(image[:, row : row + side, column : column + side])
            images.append(torch.stack(crops))
        return torch.stack(images)


def _first(center: float, pixels: int, cells: int, side: int) -> int:
    cell = int((center + 0.5) * cells // pixels)
    return min(max(cell - side // 2, 0), cells - side)


LOOPED: dict[type[nn.Module], type[Any]] = {
    AUSpecificFeatures: LoopedFeatures,
    ChannelTopology: LoopedTopology,
    LandmarkROI: LoopedROI,
    LocalRegionPerception: LoopedPerception,
    MultiDimensionalEdges: MaterializedEdges,
    NodeClassifier: LoopedNodeClassifier,
    PerAUClassifier: LoopedClassifier,
    PerAUTemporalConv: LoopedTemporalConv,
}


def looped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return a copy of `model` with the layers above, and the names of the replaced classes."""
    other, replaced = deepcopy(model), []
    for name, module in list(other.named_modules()):
        if type(module) in LOOPED:
            parent, _, child = name.rpartition(".")
            setattr(other.get_submodule(parent), child, LOOPED[type(module)](module))
            replaced.append(type(module).__name__)
    return other, sorted(set(replaced))
