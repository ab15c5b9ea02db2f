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
from aurel.models.base import AUModel, ModelConfig, relate
from aurel.models.registry import Staging, register_model
from aurel.ops.distances import Metric
from aurel.ops.topk_aggregate import Ties
from aurel.output import AUOutput

_PAPER = (
    "Luo et al., Learning Multi-dimensional Edge Feature-based AU Relation Graph for Facial Action "
    "Unit Recognition, IJCAI 2022, arXiv:2205.01782"
)
# Stochastic depth in the authors' training, for each size of the Swin.
_SWIN_DROP_PATH = {"swin_tiny": 0.2, "swin_small": 0.3, "swin_base": 0.5}
# Prefixes of the tensors that stage 2 does not take from stage 1: its edges and graph layers.
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
        k: neighbors of a node; the paper has 4 for BP4D, 3 for DISFA.
        metric: similarity that ranks neighbors.
        ties: "exact" for exactly k neighbors, "all" to keep also those that tie with the k-th, as
            the authors' code does.
    """

    k: int = 4
    metric: Metric = "dot"
    ties: Ties = "exact"

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the paper's k for this AU set, or the number of nodes where that is smaller."""
        return {"k": min(3 if aus == AU_SETS["DISFA"] else 4, len(aus))}


class NodeSelection(nn.Module):
    """Select the node that each AU is classified from; several AUs may share a node.

    Args:
        nodes: index of the node of each AU.
    """

    index: Tensor | None

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", None, persistent=False)
        self.read(nodes)

    def read(self, nodes: Sequence[int]) -> None:
        """Select these nodes from now on; the index is None where they are all, in order."""
        self.nodes = tuple(nodes)
        device = None if self.index is None else self.index.device
        in_order = self.nodes == tuple(range(len(self.nodes)))
        self.index = None if in_order else torch.tensor(self.nodes, device=device)

    def init_non_persistent_buffers(self) -> None:
        """Copy the indices of the nodes to the device of the model."""
        if self.index is not None:
            self.index.copy_(torch.tensor(self.nodes, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected nodes (B, M, C) of x (B, N, C), one for each of the M AUs."""
        return x if self.index is None else x[:, self.index]


class TopKHead(nn.Module):
    r"""Compute AU probabilities from tokens by a graph of the k most similar AUs (stage 1).

    Args:
        channels: width C of tokens and nodes.
        nodes: the node that each AU is classified from.
        k: neighbors of a node.
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
        self, tokens: Tensor, *, return_graph: bool = False
    ) -> tuple[Tensor, RelationGraph | None]:
        """Return probabilities (B, N), and the graph if asked for, for tokens (B, D, C)."""
        nodes = self.features(tokens).mean(2)
        nodes, graph = relate(self.relation, nodes, return_graph=return_graph)
        return self.classifier(self.selection(nodes)), graph


class EdgeHead(nn.Module):
    r"""Compute probabilities of AUs and of AU pairs from tokens by learned edges (stage 2).

    Args:
        channels: width C of tokens, nodes and edges.
        nodes: the node that each AU is classified from.
        residual: see `GatedEdgeGCN`.
        classify_edges: also compute logits of AU pairs.
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
        self, tokens: Tensor, *, return_graph: bool = False
    ) -> tuple[Tensor, Tensor | None, RelationGraph | None]:
        """Return probabilities (B, N), edge logits (B, N, N, 4), and the graph if asked for.

        Args:
            tokens: (B, D, C).
            return_graph: also return the gates and edges of the last layer.
        """
        node_tokens = self.features(tokens)
        edges, projected = edges_of(self.edges, self.relation, node_tokens, tokens)
        (nodes, edges), graph = relate(
            self.relation,
            node_tokens.mean(2),
            edges,
            return_graph=return_graph,
            projected=projected,
        )
        logits = None if self.edge_classifier is None else self.edge_classifier(edges)
        return self.classifier(self.selection(nodes)), logits, graph


def make_trunk(
    backbone: str, channels: int | None, pretrained: bool, out_indices: Sequence[int] = (-1,)
) -> tuple[Backbone, TokenProjection]:
    """Return the backbone and the projection to width C, which compute tokens from images.

    Args:
        backbone: timm's name.
        channels: width C; None for the authors' rule, see `MEGraphAUConfig`.
        pretrained: load the published weights of the backbone.
        out_indices: maps that the backbone returns; the last one is projected.
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
    """Return the edges (B, N, N, C), and their product with the first matrix of `relation`.

    The product costs less inside of `edges`. It is None where a part is replaced or has hooks,
    which would then not be called.
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
    r"""ME-GraphAU, stage 1: a graph of the k most similar AUs for each image.

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

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, and the graph if asked for, for images (B, 3, H, W)."""
        tokens = self.projection(self.backbone(images)[-1].flatten(2).mT)
        probs, graph = self.head(tokens, return_graph=return_graph)
        graphs = None if graph is None else (graph,)
        return self.couple(AUOutput(probs, graphs=graphs, aus=self.aus), return_graph)


def start_from_stage1(model: MEGraphAU, stage1: MEGraphAUStage1) -> MEGraphAU:
    """Copy backbone, projection, AU-specific features and classifier of stage 1 to stage 2.

    Args:
        model: stage 2.
        stage1: trained, with the same backbone, width and AUs.

    Returns:
        `model`; its edge layers keep their initial weights.

    Raises:
        ValueError: the two differ in AUs, backbone or width.
    """
    for name, expected, found in (
        ("AUs", model.aus.names, stage1.aus.names),
        ("backbone", architecture(model.config.backbone), architecture(stage1.config.backbone)),
        ("channels", model.projection.out_channels, stage1.projection.out_channels),
    ):
        if found != expected:
            raise ValueError(f"{name} of stage 1 must be {expected} as in stage 2, got {found}")
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
    r"""ME-GraphAU, stage 2: a complete graph of AUs with a feature vector for each edge.

    Edge features come from cross-attention between the tokens of each AU and the face, and then
    between the two AUs; gated graph convolutions update nodes and edges together. The four edge
    logits of (i, j) are for: neither AU, only j, only i, both present.

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

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `edge_logits`, and the graph if asked for, for images (B, 3, H, W)."""
        tokens = self.projection(self.backbone(images)[-1].flatten(2).mT)
        probs, edge_logits, graph = self.head(tokens, return_graph=return_graph)
        graphs = None if graph is None else (graph,)
        return self.couple(
            AUOutput(probs, edge_logits=edge_logits, graphs=graphs, aus=self.aus), return_graph
        )
