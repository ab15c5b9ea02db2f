"""MACG: attention over scales, a facial graph, and topology of channels (Li et al., 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.channel_topology import ChannelTopology
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.multi_scale_attention import MultiScaleAttention
from aurel.layers.multi_scale_linear_attention import MultiScaleLinearAttention
from aurel.layers.token_projection import TokenProjection
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.author_keys import macg as author_keys
from aurel.models.base import AUModel
from aurel.models.me_graphau import MEGraphAUStage1Config, make_trunk
from aurel.models.registry import register_model
from aurel.ops.arguments import check_choice
from aurel.output import AUOutput

Attention = Literal["mafg", "efficient", "none"]
Topology = Literal["shared", "per_au", "none"]

_ATTENTION = {
    "mafg": MultiScaleAttention,
    "efficient": MultiScaleLinearAttention,
    "none": lambda channels: nn.Identity(),
}


@dataclass(frozen=True)
class MACGConfig(MEGraphAUStage1Config):
    """Options of `macg`, beside those of `me_graphau_stage1`; the others are for ablation.

    Args:
        attention: over the map that the AUs' features are made of: "mafg" is the paper's,
            "efficient" that of EfficientViT, to which the paper compares, "none" leaves it out.
        graph: let every AU listen to the k most similar ones.
        channel_topology: "shared" gives all AUs the same vector, as the authors' code does,
            "per_au" each its own, as the text has it, "none" leaves it out.
    """

    attention: Attention = "mafg"
    graph: bool = True
    channel_topology: Topology = "shared"


class MACGHead(nn.Module):
    """A feature map to AU probabilities.

    Args:
        channels: width C of map and nodes.
        num_nodes: number N of AUs.
        config: the model's options.

    Raises:
        ValueError: an option has a value that is not among its own.
    """

    def __init__(self, channels: int, num_nodes: int, config: MACGConfig) -> None:
        super().__init__()
        check_choice("attention", config.attention, tuple(_ATTENTION))
        check_choice("channel_topology", config.channel_topology, get_args(Topology))
        self.attention = _ATTENTION[config.attention](channels)
        self.features = AUSpecificFeatures(channels, channels, num_nodes)
        self.relation: TopKGraphConv | None = None
        if config.graph:
            self.relation = TopKGraphConv(channels, num_nodes, config.k, config.metric, config.ties)
        self.topology: ChannelTopology | None = None
        if config.channel_topology != "none":
            shared = config.channel_topology == "shared"
            self.topology = ChannelTopology(channels, num_nodes, shared)
            self.fusion = TokenProjection(2 * channels, channels)
        self.classifier = CosineClassifier(channels, num_nodes)

    def forward(
        self, features: Tensor, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return probabilities (B, N), and the graph if asked for, for features (B, C, H, W)."""
        tokens = self.attention(features).flatten(2).mT
        nodes, graph = self.features(tokens).mean(2), None
        if self.relation is not None and return_graph:
            nodes, graph = self.relation(nodes, return_graph=True)
        elif self.relation is not None:
            nodes = self.relation(nodes)
        if self.topology is not None:
            nodes = self.fusion(torch.cat((nodes, self.topology(features)), dim=-1))
        return self.classifier(nodes), graph


@register_model(
    "macg",
    MACGConfig,
    paper=(
        "Li, Wan, Zou et al., Enhancing facial action unit recognition through topological feature "
        "integration and relational learning, Springer 2025, github.com/lkq52110/au-recognition"
    ),
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    author_layout=author_keys.LAYOUT,
)
class MACG(AUModel):
    r"""MACG: a graph of AUs over multi-scale features, beside relations of the map's columns.

    .. math::
        p_n = \cos(f_n, \mathrm{ReLU}(s_n)), \qquad
        f_n = \mathrm{ReLU}(\mathrm{BN}(W [\mathrm{GNN}(v)_n ; u_n] + b))

    The map of the backbone, projected to C channels, is weighted by `MultiScaleAttention` for the
    nodes v of `AUSpecificFeatures`, which a `TopKGraphConv` relates; u comes from `ChannelTopology`
    on the unweighted map. Rows of the paper's tables 4 and 5, with the mean F1 and accuracy that it
    reports on DISFA and EmotioNet:

    ==========  =========  =========  ===========================================================
    row         DISFA      EmotioNet  options
    ==========  =========  =========  ===========================================================
    ResNet-50   59.1/90.5  62.5/90.5  ``attention="none", graph=False, channel_topology="none"``
    + EViT      61.7/91.3             ``attention="efficient", graph=False,``
                                      ``channel_topology="none"``
    + MAFG      63.0/92.2             ``graph=False, channel_topology="none"``
    + GNN       62.9/91.8  63.3/91.8  ``attention="none", channel_topology="none"``: the baseline
    ... + MAFG  63.7/92.7  64.8/94.2  ``channel_topology="none"``
    ... + CCFG  64.9/93.4  65.9/94.8  ``attention="none"``
    all         66.6/94.1  67.2/95.6  the defaults
    figure 6    drawn      drawn      ``k=K``, K from 1 to N; best, and default, are 3 and 4
    ==========  =========  =========  ===========================================================

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an option has a value that is not among its own.

    Source: the paper, section 3, and the authors' code where they differ (see the layers). The
    paper has no model for the rows but the last: where there is no attention, AUs have features of
    the map itself; without topology there is nothing to fuse, and the nodes are classified as they
    are. The authors' head has 263 680 parameters more, in a linear block that it never calls.
    """

    config: MACGConfig

    def __init__(self, config: MACGConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        self.backbone, self.projection = make_trunk(config.backbone, config.channels, pretrained)
        self.head = MACGHead(self.projection.out_channels, len(aus), config)

    def forward(self, images: Tensor, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        features = self.backbone(images)[-1]
        tokens = self.projection(features.flatten(2).mT)
        probs, graph = self.head(tokens.mT.unflatten(2, features.shape[2:]), return_graph)
        return self.couple(
            AUOutput(probs, graphs=None if graph is None else (graph,), aus=self.aus), return_graph
        )
