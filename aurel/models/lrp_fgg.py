"""LRP + FGG: local regions, a facial graph, and the whole face (Yu et al., ABAW5, 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from aurel.backbones.build import build_backbone
from aurel.backbones.renormalize import Renormalize
from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.local_region_perception import LocalRegionPerception
from aurel.layers.token_fusion import TokenFusion
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.base import AUModel, ModelConfig, relate
from aurel.models.registry import register_model
from aurel.ops.arguments import check_choice
from aurel.ops.distances import Metric, at_least_float32
from aurel.ops.topk_aggregate import Ties
from aurel.output import AUOutput

Fusion = Literal["attention", "fixed", "none"]
Classifier = Literal["per_au", "stacked"]


@dataclass(frozen=True)
class LRPFGGConfig(ModelConfig):
    """Options of `lrp_fgg`; `perception`, `graph` and `fusion` are for ablation.

    Args:
        backbone: timm's name; the paper has IResNet-100 with weights from Glint360K.
        channels: width C of a node; None for the width of the backbone's last map.
        perception: weight the map that the AU features are made of (`LocalRegionPerception`).
        networks: number of attention networks in `LocalRegionPerception`.
        reduction: factor by which these networks reduce the channels.
        graph: one node for each AU, with messages from the k most similar nodes; without it, one
            linear layer classifies the mean of the map.
        k: neighbors of a node.
        metric: similarity that ranks neighbors.
        ties: "exact" for exactly k neighbors, "all" to keep also those that tie with the k-th.
        classifier: of the nodes: "per_au", a linear map of each node to its logit, or "stacked",
            one linear map of all nodes together to all logits, as the text reads.
        fusion: of the logits of the nodes and of the whole face: "attention" computes the weight
            from the face, "fixed" has one weight for all faces, "none" omits the whole face.
        fusion_weight: weight of the logits of the nodes in "fixed" fusion.
        fusion_depth: blocks of the encoder of "attention" fusion.
        fusion_heads: attention heads of that encoder.
    """

    width_options: ClassVar[tuple[str, ...]] = ("channels",)

    backbone: str = "iresnet100"
    channels: int | None = None
    perception: bool = True
    networks: int = 4
    reduction: int = 16
    graph: bool = True
    k: int = 4
    metric: Metric = "dot"
    ties: Ties = "exact"
    classifier: Classifier = "per_au"
    fusion: Fusion = "attention"
    fusion_weight: float = 0.5
    fusion_depth: int = 2
    fusion_heads: int = 8

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return k = 4, or the number of nodes where there are fewer."""
        return {"k": min(4, len(aus))}


class NodeClassifier(nn.Module):
    r"""Classify each node by a linear map of its own: :math:`s_n = w_n^\top v_n + b_n`.

    Args:
        channels: width C of a node.
        num_nodes: number N of nodes.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_nodes, channels))
        self.bias = nn.Parameter(torch.empty(num_nodes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weight and bias as `nn.Linear` does."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return (B, N) for nodes (B, N, C)."""
        return (nodes * self.weight).sum(-1) + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, num_nodes={self.weight.shape[0]}"


class StackedClassifier(nn.Module):
    r"""Classify all nodes by one linear map: :math:`s = W [v_1; \dots; v_N] + b`.

    Args:
        channels: width C of a node.
        num_nodes: number N of nodes.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_nodes * channels, num_nodes)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return (B, N) for nodes (B, N, C)."""
        return self.linear(nodes.flatten(1))


class LRPFGGHead(nn.Module):
    """Compute AU logits from a feature map.

    Args:
        width: channels W of the map.
        num_nodes: number N of AUs.
        config: the model's options.

    Raises:
        ValueError: an option has a value that is not among its own, or fusion without a graph.
    """

    def __init__(self, width: int, num_nodes: int, config: LRPFGGConfig) -> None:
        super().__init__()
        check_choice("fusion", config.fusion, get_args(Fusion))
        check_choice("classifier", config.classifier, get_args(Classifier))
        if config.fusion != "none" and not config.graph:
            raise ValueError(
                "fusion must be none where graph is false, because there are no logits of nodes, "
                f"got {config.fusion!r}"
            )
        channels = config.channels or width
        self.perception: nn.Module = nn.Identity()
        if config.perception:
            self.perception = LocalRegionPerception(width, config.networks, config.reduction)
        self.relation: TopKGraphConv | None = None
        if config.graph:
            self.features = AUSpecificFeatures(width, channels, num_nodes)
            self.relation = TopKGraphConv(channels, num_nodes, config.k, config.metric, config.ties)
            kind = NodeClassifier if config.classifier == "per_au" else StackedClassifier
            self.classifier: NodeClassifier | StackedClassifier = kind(channels, num_nodes)
        self.fusion: TokenFusion | None = None
        if config.fusion != "none":
            weight = config.fusion_weight if config.fusion == "fixed" else None
            self.fusion = TokenFusion(channels, config.fusion_depth, config.fusion_heads, weight)
        self.face_token: nn.Linear | None = None
        if config.fusion == "attention":
            self.face_token = nn.Linear(width, channels)
        self.face_classifier: nn.Linear | None = None
        if self.fusion is not None or self.relation is None:
            self.face_classifier = nn.Linear(width, num_nodes)

    def forward(
        self, features: Tensor, *, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return logits (B, N), and the graph if asked for, for features (B, W, H', W')."""
        weighted = self.perception(features)
        if self.relation is None:
            assert self.face_classifier is not None
            return self.face_classifier(weighted.mean((2, 3))), None
        nodes = self.features(weighted.flatten(2).mT).mean(2)
        nodes, graph = relate(self.relation, nodes, return_graph=return_graph)
        logits = self.classifier(nodes)
        if self.fusion is not None:
            assert self.face_classifier is not None
            face = features.mean((2, 3))
            token = None if self.face_token is None else self.face_token(face)
            logits = self.fusion(logits, self.face_classifier(face), nodes, token)
        return logits, graph


@register_model(
    "lrp_fgg",
    LRPFGGConfig,
    paper=(
        "Yu, Li, Cai et al., Local Region Perception and Relationship Learning Combined with "
        "Feature Fusion for Facial Action Unit Detection, CVPR Workshops (ABAW5) 2023, "
        "arXiv:2303.08545"
    ),
    outputs=("probs", "logits", "graphs"),
    losses={"bce": 1.0, "circle": 1.0},
    image_size=112,
)
class LRPFGG(AUModel):
    r"""LRP + FGG: a graph of AUs over attended regions, fused with logits of the whole face.

    .. math::
        X = \mathrm{backbone}(I), \qquad
        v_n = \mathrm{mean}_d\, \mathrm{AFG}_n(\mathrm{LRP}(X))_d, \qquad v' = \mathrm{FGG}(v) \\
        p = \sigma(w\, s + (1 - w)\, z), \qquad s_n = a_n^\top v'_n + b_n, \qquad
        z = A\, \mathrm{mean}_{hw} X + c

    Images are normalized with ImageNet's statistics, as for every model; the model converts them to
    the statistics that the backbone's weights were trained with (0.5 and 0.5 for IResNet).
    IResNet-100 was trained on faces of 112 pixels; images may have any size.
    docs/models/lrp_fgg.md lists the options for the paper's ablations.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone. Those of IResNet-100 cannot be
            downloaded by the library: give the file as ``model.backbone_weights`` in a recipe, or
            to ``build_backbone(checkpoint=...)``.

    Raises:
        ValueError: an option has a value that is not among its own, or fusion without a graph.

    Source: the paper, section 3; no code was published. The paper leaves open, and chosen here are:
    4 attention networks with reduction 16, k = 4, width C of nodes and tokens that of the map
    (512), a separate linear map of each node for the AU logits (``classifier="stacked"`` is one of
    all nodes, as the text has it), the mean of the map for the logits
    of the face, 8 heads in the encoder, and 0.5 for the fixed weight. The map is the output of
    IResNet's last norm.
    """

    config: LRPFGGConfig

    def __init__(self, config: LRPFGGConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        self.backbone = build_backbone(
            config.backbone, pretrained=pretrained, out_indices=(-1,), final_norm=True
        )
        data = self.backbone.data_config
        self.renormalize = Renormalize(data["mean"], data["std"])
        self.head = LRPFGGHead(self.backbone.channels[-1], len(aus), config)

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `logits`, and the graph if asked for, for images (B, 3, H, W)."""
        features = self.backbone(self.renormalize(images))[-1]
        logits, graph = self.head(features, return_graph=return_graph)
        logits = at_least_float32(logits)
        graphs = None if graph is None else (graph,)
        return self.couple(
            AUOutput(logits.sigmoid(), logits, graphs=graphs, aus=self.aus), return_graph
        )
