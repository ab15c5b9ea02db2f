"""py-feat 2's multi-task model: the path of its action units (Cheong et al., py-feat)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.backbones.build import build_backbone
from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.constants import keep_constants
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.models.author_keys import pyfeat_multitask as author_keys
from aurel.models.base import AUModel, ModelConfig
from aurel.models.registry import register_model
from aurel.ops.knn_graph import knn_graph
from aurel.ops.neighbor_aggregate import neighbor_aggregate
from aurel.output import AUOutput


@dataclass(frozen=True)
class PyFeatMultitaskConfig(ModelConfig):
    """Options of `pyfeat_multitask`.

    Args:
        backbone: timm's name; the authors have ConvNeXt V2 Tiny.
        channels: width C of a node.
        k: neighbors of a node besides itself; 4 in the authors' code.
    """

    width_options: ClassVar[tuple[str, ...]] = ("channels",)

    backbone: str = "convnextv2_tiny"
    channels: int = 512
    k: int = 4

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the authors' k, or the number of other nodes where that is smaller."""
        return {"k": min(4, len(aus) - 1)}


class NearestMean(nn.Module):
    r"""Add the mean message of the nodes with the most similar directions to the node itself.

    .. math:: x'_i = \mathrm{ReLU}(W_s x_i + \mathrm{mean}_{j \in N(i) \setminus i} W x_j)

    N(i) are the k + 1 nodes of the largest cosine, of which the node itself is taken out. Where it
    is not among them, such as a node of zeros, all k + 1 remain, as in the authors' code.

    Args:
        channels: width C of the nodes.
        k: number of neighbors.
    """

    def __init__(self, channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.message = nn.Linear(channels, channels, bias=False)
        self.node = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes (B, N, C), and the neighbors (B, N, k + 1), -1 for the node itself."""
        neighbors = knn_graph(F.normalize(x, dim=-1), self.k + 1, "dot")
        itself = torch.arange(x.shape[1], device=x.device)[:, None]
        neighbors = neighbors.masked_fill(neighbors == itself, -1)
        messages = neighbor_aggregate(self.message(x), neighbors, "mean")
        return F.relu(self.node(x) + messages), neighbors


@register_model(
    "pyfeat_multitask",
    PyFeatMultitaskConfig,
    paper="Cheong et al., Py-Feat: Python Facial Expression Analysis Toolbox, Affective Science "
    "2023, arXiv:2104.03509; version 2.1, github.com/cosanlab/py-feat",
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    author_layout=author_keys.LAYOUT,
)
class PyFeatMultitask(AUModel):
    r"""py-feat 2's AU path: features of each AU, the mean of similar AUs, prototypes.

    .. math::
        T = W_p\, \mathrm{backbone}(I), \qquad v_n = \mathrm{mean}_d\, \mathrm{AFG}_n(T)_d, \qquad
        p_n = \cos(x'_n, \mathrm{ReLU}(s_n))

    with x' from `NearestMean`. The heads of the authors' model for emotions, gaze, pose, mesh and
    blendshapes are left out.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Source: the authors' package, `feat.multitask.model_v2` with `drop_mefl`.
    """

    config: PyFeatMultitaskConfig

    def __init__(
        self, config: PyFeatMultitaskConfig, aus: AUSet, *, pretrained: bool = False
    ) -> None:
        super().__init__(config, aus)
        self.backbone = build_backbone(config.backbone, pretrained=pretrained, out_indices=(-1,))
        channels, nodes = config.channels, len(aus)
        self.projection = nn.Linear(self.backbone.channels[-1], channels, bias=False)
        self.features = AUSpecificFeatures(channels, channels, nodes)
        self.relation = NearestMean(channels, config.k)
        self.classifier = CosineClassifier(channels, nodes)
        keep_constants(self)

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        tokens = self.projection(self.backbone(images)[-1].flatten(2).mT)
        nodes, neighbors = self.relation(self.features(tokens).mean(2))
        graphs = (RelationGraph(neighbors=neighbors),) if return_graph else None
        output = AUOutput(self.classifier(nodes), graphs=graphs, aus=self.aus)
        return self.couple(output, return_graph)
