"""A small net that reads each AU from windows of its own: the model of `aurel demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.build import build_backbone
from aurel.facs import INNER_EYE_CORNERS, AUSet, au_center_rules
from aurel.graph import RelationGraph
from aurel.layers.self_adjusting_gcn import SelfAdjustingGCN
from aurel.models.base import AUModel, ModelConfig
from aurel.models.mean_face import MEAN_FACE_49
from aurel.models.registry import register_model
from aurel.ops.arguments import check_choice
from aurel.ops.distances import at_least_float32
from aurel.output import AUOutput

_STRIDE = 4
_CHANNELS = 12
_RELATIONS = ("none", "self_adjusting")


@dataclass(frozen=True)
class AUWindowsConfig(ModelConfig):
    """Options of `au_windows`.

    Args:
        backbone: its first map, at 1/2 or 1/4 of the image, is read. A shallow one keeps the
            windows local: that of a ResNet sees 7 pixels.
        image_size: side of the images in pixels.
        width: channels of a node.
        side: of a window, in cells of 4 pixels.
        dropout: of the cells.
        relation: "self_adjusting" adds to each logit a correction from two graph convolutions over
            the k nearest nodes; "none" leaves it out.
        k: neighbors of a node, at most all nodes.
    """

    width_options = ("width", "side")

    backbone: str = "test_resnet"
    image_size: int = 64
    width: int = 24
    side: int = 4
    dropout: float = 0.2
    relation: Literal["none", "self_adjusting"] = "none"
    k: int = 9


@register_model(
    "au_windows",
    AUWindowsConfig,
    paper="none: the model of aurel demo, github.com/aurel-au/aurel",
    outputs=("probs", "logits", "graphs"),
    losses={"bce": 1.0},
    image_size=64,
)
class AUWindows(AUModel):
    r"""A net for demonstrations: each AU is read from two windows of an aligned face.

    .. math::
        v_n = \mathrm{ReLU}(W_n\,\mathrm{window}_n(F) + b_n), \qquad
        u_n = w_n^\top v_n + c_n + d_n^\top \mathrm{relation}(v + e)_n, \qquad
        p_n = \sigma(u_n)

    F is a shallow feature map at a quarter of the image. The windows lie around the centers of the
    AU on the mean face, so the face must be aligned as that of the training images. What lies
    outside its windows reaches an AU through the relation alone, or through a relation head.

    Args:
        config: options.
        aus: the N AUs, each with a center rule.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an AU without a center rule, or an option out of range.
    """

    config: AUWindowsConfig
    cells: Tensor

    def __init__(self, config: AUWindowsConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        check_choice("relation", config.relation, _RELATIONS)
        self.backbone = build_backbone(config.backbone, pretrained=pretrained, out_indices=(0,))
        reduction = self.backbone.reductions[0]
        if reduction not in (2, 4):
            raise ValueError(
                f"backbone must have its first map at 1/2 or 1/4 of the image, {config.backbone} "
                f"has 1/{reduction}"
            )
        channels, width, number = self.backbone.channels[0], config.width, len(aus)
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 48, 3, _STRIDE // reduction, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, _CHANNELS, 1),
            nn.ReLU(),
        )
        self.register_buffer("cells", au_cells(aus, config.image_size, config.side))
        fan = _CHANNELS * self.cells.shape[1]
        self.weight = nn.Parameter(torch.randn(number, fan, width) * (2 / fan) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(number, width))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = AUReadout(number, width, spread=0.1)
        self.relation: SelfAdjustingGCN | None = None
        if config.relation == "self_adjusting":
            k = min(config.k, number)
            self.relation = SelfAdjustingGCN(width, width, dims=(width,), depths=(2,), k=k)
            self.identity = nn.Parameter(torch.randn(number, width) * 0.1)
            self.correction = AUReadout(number, width, spread=0.0)

    @property
    def image_size(self) -> int:
        """Side in pixels that the images must have."""
        return self.config.image_size

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `logits`, and the graphs if asked for, for images (B, 3, S, S)."""
        size = self.config.image_size
        if tuple(images.shape[2:]) != (size, size):
            raise ValueError(f"images must be (B, 3, {size}, {size}), got {tuple(images.shape)}")
        cells = self.trunk(self.backbone(images)[0]).flatten(2)[:, :, self.cells]
        windows = self.dropout(cells.transpose(1, 2).flatten(2))
        nodes = F.relu(torch.einsum("bnk,nkd->bnd", windows, self.weight) + self.bias)
        logits = self.classifier(nodes)
        graphs: tuple[RelationGraph, ...] | None = None
        if self.relation is not None:
            related, found = self.relation(nodes + self.identity, return_graph=True)
            logits = logits + self.correction(related)
            graphs = tuple(found) if return_graph else None
        logits = at_least_float32(logits)
        return self.couple(
            AUOutput(logits.sigmoid(), logits, graphs=graphs, aus=self.aus), return_graph
        )


class AUReadout(nn.Module):
    """One linear output for each AU: (B, N, C) to (B, N).

    Args:
        num_aus: N.
        channels: C.
        spread: standard deviation of the initial weights.
    """

    def __init__(self, num_aus: int, channels: int, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_aus, channels) * spread)
        self.bias = nn.Parameter(torch.zeros(num_aus))

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the outputs (B, N) of `nodes` (B, N, C)."""
        return (nodes * self.weight).sum(-1) + self.bias


def au_cells(aus: AUSet, size: int, side: int) -> Tensor:
    """Return the cells of the map at a quarter of the image that each AU reads, (N, 2 side^2).

    Args:
        aus: the AUs.
        size: side of the image in pixels.
        side: of a window in cells.

    Raises:
        ValueError: a window does not fit into the map, or an AU has no center rule.
    """
    across = -(-size // _STRIDE)
    if not 1 <= side <= across:
        raise ValueError(f"side must be in 1..{across} for images of {size} pixels, got {side}")
    rules = au_center_rules(aus)
    left, right = (MEAN_FACE_49[point] for point in INNER_EYE_CORNERS)
    eye_distance = right[0] - left[0]
    reach = torch.arange(side)
    cells = []
    for nodes in rules.au_nodes:
        own = []
        for node in nodes:
            pair, which = divmod(node, 2)
            x, y = MEAN_FACE_49[rules.points[pair][which]]
            column, row = (
                min(max(round(v * size / _STRIDE - side / 2), 0), across - side)
                for v in (x, y + rules.offsets[pair] * eye_distance)
            )
            own.append(((row + reach)[:, None] * across + column + reach).flatten())
        cells.append(torch.cat(own))
    return torch.stack(cells)
