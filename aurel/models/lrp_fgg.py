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
from aurel.models.base import AUModel, ModelConfig
from aurel.models.registry import register_model
from aurel.ops.arguments import check_choice
from aurel.ops.distances import Metric, at_least_float32
from aurel.ops.topk_aggregate import Ties
from aurel.output import AUOutput

Fusion = Literal["attention", "fixed", "none"]


@dataclass(frozen=True)
class LRPFGGConfig(ModelConfig):
    """Options of `lrp_fgg`; `perception`, `graph` and `fusion` are for ablation.

    Args:
        backbone: timm's name; the paper's is IResNet-100 with weights from Glint360K.
        channels: width C of a node; None for that of the backbone's last map.
        perception: weigh the map that AUs' features are made of (`LocalRegionPerception`).
        networks: its number of attention networks.
        reduction: by how much they narrow the channels.
        graph: have a node an AU, which listens to the k most similar ones; without it, the mean of
            the map is classified by one linear layer.
        k: neighbours of a node.
        metric: similarity that ranks neighbours.
        ties: "exact" for exactly k neighbours, "all" to keep also what ties with the k-th.
        fusion: of the nodes' logits and the whole face's: "attention" reads the weight off the
            face, "fixed" has the same for all, "none" leaves the whole face out.
        fusion_weight: of the nodes' logits in "fixed" fusion.
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
    fusion: Fusion = "attention"
    fusion_weight: float = 0.5
    fusion_depth: int = 2
    fusion_heads: int = 8

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a k that is no more than there are nodes."""
        return {"k": min(4, len(aus))}


class NodeClassifier(nn.Module):
    r"""Logits of nodes, each by its own linear map: :math:`s_n = w_n^\top v_n + b_n`.

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
        """Draw weight and bias as `nn.Linear` does."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return (B, N) for nodes (B, N, C)."""
        return (nodes * self.weight).sum(-1) + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, num_nodes={self.weight.shape[0]}"


class LRPFGGHead(nn.Module):
    """A feature map to AU logits.

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
        if config.fusion != "none" and not config.graph:
            raise ValueError(
                f"fusion must be none where graph is false: there are no nodes whose logits could "
                f"be fused, got {config.fusion!r}"
            )
        channels = config.channels or width
        self.perception: nn.Module = nn.Identity()
        if config.perception:
            self.perception = LocalRegionPerception(width, config.networks, config.reduction)
        self.relation: TopKGraphConv | None = None
        if config.graph:
            self.features = AUSpecificFeatures(width, channels, num_nodes)
            self.relation = TopKGraphConv(channels, num_nodes, config.k, config.metric, config.ties)
            self.classifier = NodeClassifier(channels, num_nodes)
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
        self, features: Tensor, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return logits (B, N), and the graph if asked for, for features (B, W, H', W')."""
        seen = self.perception(features)
        if self.relation is None:
            assert self.face_classifier is not None
            return self.face_classifier(seen.mean((2, 3))), None
        nodes, graph = self.features(seen.flatten(2).mT).mean(2), None
        if return_graph:
            nodes, graph = self.relation(nodes, return_graph=True)
        else:
            nodes = self.relation(nodes)
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
    r"""LRP + FGG: a graph of AUs over attended regions, fused with what the whole face says.

    .. math::
        X = \mathrm{backbone}(I), \qquad
        v_n = \mathrm{mean}_d\, \mathrm{AFG}_n(\mathrm{LRP}(X))_d, \qquad v' = \mathrm{FGG}(v) \\
        p = \sigma(w\, s + (1 - w)\, z), \qquad s_n = a_n^\top v'_n + b_n, \qquad
        z = A\, \mathrm{mean}_{hw} X + c

    Rows of the paper's table 2, reported mean F1 on the official validation set of Aff-Wild2:

    ==============  =====  ==================================================================
    IResNet-100     46.82  ``perception=False, graph=False, fusion="none"``; ``losses.circle: 0``
    + circle loss   47.78  the same with ``losses.circle: 1``
    + Glint360K     49.06  ``model.backbone_weights``: the published file
    + ARL (graph)   49.56  ``perception=False, fusion="none"``
    + LRP           50.19  ``fusion="none"``
    + FF, all       51.06  the defaults
    ==============  =====  ==================================================================

    Images are normalised with ImageNet's statistics, as for every model; what the backbone's
    weights were trained with (0.5 and 0.5 for IResNet) is put in their place here. IResNet-100 was
    trained on faces of 112 pixels; any size is served.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone; there are none for IResNet-100 that
            may be fetched without asking, so name the file (``build_backbone(checkpoint=...)``,
            ``model.backbone_weights`` in a recipe).

    Raises:
        ValueError: an option has a value that is not among its own, or fusion without a graph.

    Source: the paper, section 3; no code was published. It leaves open, and we chose: 4 attention
    networks with reduction 16, k = 4, width C of nodes and tokens that of the map (512), a private
    linear map of each node for the AU logits, the mean of the map for those of the backbone, 8
    heads in the encoder, and 0.5 for the fixed weight. The map is that after IResNet's last norm.
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

    def forward(self, images: Tensor, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `logits`, and the graph if asked for, for images (B, 3, H, W)."""
        features = self.backbone(self.renormalize(images))[-1]
        logits, graph = self.head(features, return_graph)
        logits = at_least_float32(logits)
        graphs = None if graph is None else (graph,)
        return AUOutput(logits.sigmoid(), logits, graphs=graphs, aus=self.aus)
