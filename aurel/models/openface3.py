"""OpenFace 3.0: the action units of its multi-task model (Hu et al., FG 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.backbones.build import Backbone, build_network, data_config_of
from aurel.facs import AUSet
from aurel.layers.constants import keep_constants
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.author_keys import openface3 as author_keys
from aurel.models.base import AUModel, ModelConfig, relate
from aurel.models.registry import register_model
from aurel.ops.topk_aggregate import Ties
from aurel.output import AUOutput


@dataclass(frozen=True)
class OpenFace3Config(ModelConfig):
    """Options of `openface3`.

    Args:
        backbone: timm's name; the authors have EfficientNet-B0.
        k: neighbors of a node; 4 in the authors' code.
        ties: "all" to keep also those that tie with the k-th, as the authors' code does, or
            "exact".
    """

    backbone: str = "tf_efficientnet_b0"
    k: int = 4
    ties: Ties = "all"

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the authors' k, or the number of nodes where that is smaller."""
        return {"k": min(4, len(aus))}


@register_model(
    "openface3",
    OpenFace3Config,
    paper=(
        "Hu, Mathur, Liang, Morency, OpenFace 3.0: A Lightweight Multitask System for "
        "Comprehensive Facial Behavior Analysis, FG 2025, arXiv:2506.02891"
    ),
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    author_layout=author_keys.LAYOUT,
    num_aus=8,
)
class OpenFace3(AUModel):
    r"""OpenFace 3.0's AU path: the graph of ME-GraphAU's first stage over a pooled vector.

    .. math::
        f = \mathrm{ReLU}(W_f\, \mathrm{pool}(\mathrm{backbone}(I)) + b_f), \qquad
        v_n = W_n f + b_n, \qquad p_n = \cos(\mathrm{FGG}(v)_n, \mathrm{ReLU}(s_n))

    All nodes are of the pooled vector, not of positions in the map. The heads of the authors' model
    for emotions and gaze are left out.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Source: the authors' package; section III of the paper concatenates landmarks to the vector,
    which the released model does not.
    """

    config: OpenFace3Config

    def __init__(self, config: OpenFace3Config, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        net = build_network(config.backbone, pretrained=pretrained)
        width, nodes = net.num_features, len(aus)
        # EfficientNet's last convolution is no part of its feature maps, so that timm removes it.
        last = (net.conv_head, net.bn2) if hasattr(net, "conv_head") else ()
        self.backbone = Backbone(net, (len(net.feature_info) - 1,), data_config=data_config_of(net))
        self.expansion = nn.Sequential(*last)
        self.project = nn.Linear(width, width)
        self.features = nn.Linear(width, nodes * width)
        self.relation = TopKGraphConv(width, nodes, config.k, "dot", config.ties)
        self.classifier = CosineClassifier(width, nodes)
        keep_constants(self)

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        face = self.expansion(self.backbone(images)[-1]).mean((2, 3))
        nodes = self.features(F.relu(self.project(face))).unflatten(1, (len(self.aus), -1))
        nodes, graph = relate(self.relation, nodes, return_graph=return_graph)
        graphs = None if graph is None else (graph,)
        probs = self.classifier(nodes)
        return self.couple(AUOutput(probs, graphs=graphs, aus=self.aus), return_graph)
