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
from aurel.models.base import AUModel, relate
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
        attention: over the map that the AU features are made of: "mafg" is the paper's,
            "efficient" that of EfficientViT, to which the paper compares, "none" for no attention.
        graph: send messages to every AU from the k most similar ones.
        channel_topology: "shared" gives all AUs the same vector, as the authors' code does,
            "per_au" gives each AU its own, as in the paper's text, "none" for no topology.
    """

    attention: Attention = "mafg"
    graph: bool = True
    channel_topology: Topology = "shared"


class MACGHead(nn.Module):
    """Compute AU probabilities from a feature map.

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
        self, features: Tensor, *, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return probabilities (B, N), and the graph if asked for, for features (B, C, H, W)."""
        tokens = self.attention(features).flatten(2).mT
        nodes, graph = self.features(tokens).mean(2), None
        if self.relation is not None:
            nodes, graph = relate(self.relation, nodes, return_graph=return_graph)
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
    r"""MACG: a graph of AUs over multi-scale features, and relations between columns of the map.

    .. math::
        p_n = \cos(f_n, \mathrm{ReLU}(s_n)), \qquad
        f_n = \mathrm{ReLU}(\mathrm{BN}(W [\mathrm{GNN}(v)_n ; u_n] + b))

    The map of the backbone, projected to C channels, is weighted by `MultiScaleAttention` for the
    nodes v of `AUSpecificFeatures`, which a `TopKGraphConv` relates; u comes from `ChannelTopology`
    on the map without these weights. docs/models/macg.md lists the options for the paper's
    ablations.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an option has a value that is not among its own.

    Source: the paper, section 3, and the authors' code where they differ (see the layers). The
    paper does not define the models of its ablations: here the AU features are made of the map
    itself where there is no attention, and the nodes are classified without a fusion where there
    is no topology. The authors' head has 263 680 parameters more, in a linear block that it never
    calls.
    """

    config: MACGConfig

    def __init__(self, config: MACGConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        self.backbone, self.projection = make_trunk(config.backbone, config.channels, pretrained)
        self.head = MACGHead(self.projection.out_channels, len(aus), config)

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        features = self.backbone(images)[-1]
        tokens = self.projection(features.flatten(2).mT)
        face = tokens.mT.unflatten(2, features.shape[2:])
        probs, graph = self.head(face, return_graph=return_graph)
        graphs = None if graph is None else (graph,)
        return self.couple(AUOutput(probs, graphs=graphs, aus=self.aus), return_graph)
