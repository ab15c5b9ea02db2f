"""ME-GraphAU: facial graphs with learned edges (Luo et al., IJCAI 2022), in its two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aurel.backbones.build import Backbone, architecture, build_backbone
from aurel.facs import AU_SETS, AUSet
from aurel.graph import RelationGraph
from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.constants import keep_constants
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.gated_edge_gcn import GatedEdgeGCN, Residual
from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges
from aurel.layers.plain import is_plain
from aurel.layers.token_projection import TokenProjection
from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.author_keys import me_graphau as author_keys
from aurel.models.base import AUModel, ModelConfig
from aurel.models.registry import Staging, register_model
from aurel.ops.distances import Metric
from aurel.ops.topk_aggregate import Ties
from aurel.output import AUOutput

_PAPER = (
    "Luo et al., Learning Multi-dimensional Edge Feature-based AU Relation Graph for Facial Action "
    "Unit Recognition, IJCAI 2022, arXiv:2205.01782"
)
# Stochastic depth in the authors' training, by the size of the Swin.
_SWIN_DROP_PATH = {"swin_tiny": 0.2, "swin_small": 0.3, "swin_base": 0.5}
# Prefixes of what stage 2 does not inherit from stage 1: its edges and graph layers.
FRESH = ("head.edge", "head.relation.")


@dataclass(frozen=True)
class MEGraphAUConfig(ModelConfig):
    """Options of `me_graphau`.

    Args:
        backbone: timm's name; the paper has ResNet-50 and the Swin transformers.
        channels: width C of a node; None for the authors' rule, a quarter of the backbone's last
            map for convolutional networks, a half for transformers.
    """

    width_options: ClassVar[tuple[str, ...]] = ("channels",)

    backbone: str = "resnet50"
    channels: int | None = None


@dataclass(frozen=True)
class MEGraphAUStage1Config(MEGraphAUConfig):
    """Options of `me_graphau_stage1`.

    Args:
        k: neighbours of a node; the paper's 4 for BP4D, 3 for DISFA.
        metric: similarity that ranks neighbours.
        ties: "exact" for exactly k neighbours, "all" for the authors' code, which also keeps what
            ties with the k-th.
    """

    k: int = 4
    metric: Metric = "dot"
    ties: Ties = "exact"

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the paper's k for this AU set, no more than there are nodes."""
        return {"k": min(3 if aus == AU_SETS["DISFA"] else 4, len(aus))}


class NodeSelection(nn.Module):
    """The node that each AU is classified from; several AUs may share one.

    Args:
        nodes: number of the node, for each AU.
    """

    index: Tensor | None

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", None, persistent=False)
        self.read(nodes)

    def read(self, nodes: Sequence[int]) -> None:
        """Select these nodes from now on; all of them in their order need no index."""
        self.nodes = tuple(nodes)
        device = None if self.index is None else self.index.device
        in_order = self.nodes == tuple(range(len(self.nodes)))
        self.index = None if in_order else torch.tensor(self.nodes, device=device)

    def init_non_persistent_buffers(self) -> None:
        """Copy the numbers of the nodes to where the features are."""
        if self.index is not None:
            self.index.copy_(torch.tensor(self.nodes, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected rows of x (B, N, C), one for each AU."""
        return x if self.index is None else x[:, self.index]


class TopKHead(nn.Module):
    r"""Tokens to AU probabilities over a graph of the k most similar AUs (stage 1).

    Args:
        channels: width C of tokens and nodes.
        nodes: the node that each AU is classified from.
        k: neighbours of a node.
        metric: see `TopKGraphConv`.
        ties: see `TopKGraphConv`.
    """

    def __init__(
        self, channels: int, nodes: Sequence[int], k: int, metric: Metric, ties: Ties
    ) -> None:
        super().__init__()
        num_nodes = 1 + max(nodes)
        self.features = AUSpecificFeatures(channels, channels, num_nodes)
        self.relation = TopKGraphConv(channels, num_nodes, k, metric, ties)
        self.classifier = CosineClassifier(channels, len(nodes))
        self.selection = NodeSelection(nodes)
        keep_constants(self)

    def forward(
        self, tokens: Tensor, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return probabilities (B, N), and the graph if asked for, for tokens (B, D, C)."""
        x, graph = self.features(tokens).mean(2), None
        if return_graph:
            x, graph = self.relation(x, return_graph=True)
        else:
            x = self.relation(x)
        return self.classifier(self.selection(x)), graph


class EdgeHead(nn.Module):
    r"""Tokens to AU and AU-pair probabilities over a complete graph with learned edges (stage 2).

    Args:
        channels: width C of tokens, nodes and edges.
        nodes: the node that each AU is classified from.
        residual: see `GatedEdgeGCN`.
        classify_edges: also give logits of AU pairs.
    """

    def __init__(
        self,
        channels: int,
        nodes: Sequence[int],
        residual: Residual = "inside",
        classify_edges: bool = True,
    ) -> None:
        super().__init__()
        num_nodes = 1 + max(nodes)
        self.features = AUSpecificFeatures(channels, channels, num_nodes)
        self.edges = MultiDimensionalEdges(channels, num_nodes)
        self.relation = GatedEdgeGCN(channels, num_nodes, residual=residual)
        self.classifier = CosineClassifier(channels, len(nodes))
        self.edge_classifier: nn.Linear | None = None
        if classify_edges:
            self.edge_classifier = nn.Linear(channels, 4)
            nn.init.xavier_uniform_(self.edge_classifier.weight)
        self.selection = NodeSelection(nodes)
        keep_constants(self)

    def forward(
        self, tokens: Tensor, return_graph: bool = False
    ) -> tuple[Tensor, Tensor | None, RelationGraph | None]:
        """Return probabilities (B, N), edge logits (B, N, N, 4), and the graph if asked for.

        Args:
            tokens: (B, D, C).
            return_graph: also return the gates and edges of the last layer.
        """
        node_tokens = self.features(tokens)
        nodes, graph = node_tokens.mean(2), None
        edges, projected = edges_of(self.edges, self.relation, node_tokens, tokens)
        if return_graph:
            (nodes, edges), graph = self.relation(
                nodes, edges, return_graph=True, projected=projected
            )
        else:
            nodes, edges = self.relation(nodes, edges, projected=projected)
        logits = None if self.edge_classifier is None else self.edge_classifier(edges)
        return self.classifier(self.selection(nodes)), logits, graph


def make_trunk(
    backbone: str, channels: int | None, pretrained: bool, out_indices: Sequence[int] = (-1,)
) -> tuple[Backbone, TokenProjection]:
    """Return what makes tokens of images: the backbone, and the projection to width C.

    Args:
        backbone: timm's name.
        channels: width C; None for the authors' rule, see `MEGraphAUConfig`.
        pretrained: load the published weights of the backbone.
        out_indices: maps that the backbone returns; the last is the one that is projected.
    """
    size = "_".join(backbone.split("_")[:2])
    options: dict[str, Any] = {}
    if size in _SWIN_DROP_PATH:
        options["drop_path_rate"] = _SWIN_DROP_PATH[size]
    net = build_backbone(
        backbone, pretrained=pretrained, out_indices=out_indices, final_norm=True, **options
    )
    width = net.channels[-1]
    channels = channels or width // (2 if backbone.startswith(("swin", "vit")) else 4)
    return net, TokenProjection(width, channels)


def edges_of(
    edges: MultiDimensionalEdges, relation: GatedEdgeGCN, node_tokens: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the edges (B, N, N, C), and these times the first matrix of `relation`, if possible.

    That product is cheaper made by `edges`, but then no hook sees the call.
    """
    weight = relation.edge_weight()
    if weight is None or not is_plain(edges, MultiDimensionalEdges):
        return edges(node_tokens, tokens), None
    return edges.with_projection(node_tokens, tokens, weight)


@register_model(
    "me_graphau_stage1",
    MEGraphAUStage1Config,
    paper=_PAPER,
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    author_layout=author_keys.STAGE1,
)
class MEGraphAUStage1(AUModel):
    r"""ME-GraphAU, stage 1: one graph of the k most similar AUs an image.

    .. math::
        T = \mathrm{proj}(\mathrm{backbone}(I)), \qquad
        v_n = \mathrm{mean}_d\, \mathrm{AFG}_n(T)_d, \qquad
        p_n = \cos(\mathrm{FGG}(v)_n, \mathrm{ReLU}(s_n))

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Source: section 3.1 of the paper (ANFL).
    """

    config: MEGraphAUStage1Config

    def __init__(
        self, config: MEGraphAUStage1Config, aus: AUSet, *, pretrained: bool = False
    ) -> None:
        super().__init__(config, aus)
        self.backbone, self.projection = make_trunk(config.backbone, config.channels, pretrained)
        nodes, channels = self._nodes_read(), self.projection.out_channels
        self.head = TopKHead(channels, nodes, config.k, config.metric, config.ties)

    def _nodes_read(self) -> Sequence[int]:
        """Return the node that each AU is classified from."""
        return range(len(self.aus))

    def forward(self, images: Tensor, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        tokens = self.projection(self.backbone(images)[-1].flatten(2).mT)
        probs, graph = self.head(tokens, return_graph)
        return AUOutput(probs, graphs=None if graph is None else (graph,), aus=self.aus)


def start_from_stage1(model: MEGraphAU, stage1: MEGraphAUStage1) -> MEGraphAU:
    """Copy what stage 2 inherits: backbone, projection, AU-specific features, classifier.

    Args:
        model: stage 2.
        stage1: trained, with the same backbone, width and AUs.

    Returns:
        `model`; its edge layers keep their fresh weights.

    Raises:
        ValueError: the two differ in AUs, backbone or width.
    """
    for what, ours, theirs in (
        ("AUs", model.aus.names, stage1.aus.names),
        ("backbone", architecture(model.config.backbone), architecture(stage1.config.backbone)),
        ("channels", model.projection.out_channels, stage1.projection.out_channels),
    ):
        if ours != theirs:
            raise ValueError(f"{what} of the stages differ: stage 1 {theirs}, stage 2 {ours}")
    model.backbone.load_state_dict(stage1.backbone.state_dict())
    model.projection.load_state_dict(stage1.projection.state_dict())
    model.head.features.load_state_dict(stage1.head.features.state_dict())
    model.head.classifier.load_state_dict(stage1.head.classifier.state_dict())
    return model


@register_model(
    "me_graphau",
    MEGraphAUConfig,
    paper=_PAPER,
    outputs=("probs", "edge_logits", "graphs"),
    losses={"asymmetric": 1.0, "edge": 0.05},
    starts_from={"me_graphau_stage1": Staging(start_from_stage1, FRESH)},
    author_layout=author_keys.STAGE2,
)
class MEGraphAU(AUModel):
    r"""ME-GraphAU, stage 2: a complete graph of AUs with an edge feature a pair.

    Edges come from cross-attention of each AU's tokens with the face's and then with the other
    AU's; gated graph convolutions update nodes and edges together. Edge logits (i, j) tell whether
    neither AU, only j, only i or both are present.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Source: section 3.2 of the paper (MEFL). It starts from a trained stage 1 (`start_from_stage1`).
    """

    config: MEGraphAUConfig

    def __init__(self, config: MEGraphAUConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        self.backbone, self.projection = make_trunk(config.backbone, config.channels, pretrained)
        self.head = self._make_head(self.projection.out_channels)

    def _make_head(self, channels: int) -> EdgeHead:
        return EdgeHead(channels, range(len(self.aus)))

    def forward(self, images: Tensor, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `edge_logits`, and the graph if asked for, for images (B, 3, H, W)."""
        tokens = self.projection(self.backbone(images)[-1].flatten(2).mT)
        probs, edge_logits, graph = self.head(tokens, return_graph)
        graphs = None if graph is None else (graph,)
        return AUOutput(probs, edge_logits=edge_logits, graphs=graphs, aus=self.aus)
