"""SACL: self-adjusting graphs over AU regions, with multi-scale features (Liu & Yuan et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from aurel.backbones.build import build_backbone
from aurel.facs import AUCenter, AUCenterRules, AUSet, au_center_rules
from aurel.graph import RelationGraph
from aurel.layers.cross_attention import CrossAttention
from aurel.layers.landmark_predictor import LandmarkPredictor
from aurel.layers.landmark_roi import LandmarkROI
from aurel.layers.multi_scale_fusion import MultiScaleFusion
from aurel.layers.node_transformer import NodeTransformer
from aurel.layers.self_adjusting_gcn import Conv, SelfAdjustingGCN
from aurel.models.base import AUModel, ModelConfig
from aurel.models.fixed_graphs import Matrix, NamedGraph, graph_from_labels, region_graph
from aurel.models.mean_face import MEAN_FACE_49
from aurel.models.registry import register_model
from aurel.ops.arguments import check_choice, check_k, check_shape
from aurel.ops.distances import Metric, at_least_float32
from aurel.output import AUOutput

_PAPER = (
    "Liu, Yuan et al., Multi-scale Promoted Self-adjusting Correlation Learning for Facial Action "
    "Unit Detection, IEEE Transactions on Affective Computing 2024, arXiv:2308.07770"
)

Fusion = Literal["concat", "cross_attention"]
Correlation = Literal["gcn", "transformer"]
ROIEmbed = Literal["pool", "flatten"]

DIMS = (64, 128, 256, 512, 512, 512, 512)
DEPTHS = (2, 2, 6, 2, 2, 2, 2)
"""Widths and depths of up to seven graph stages; the paper has four, the others are chosen here."""

_LANDMARK_LOSS = (
    "it alone trains the landmark predictor, which places the regions (model.options.relations "
    "false gives a model without regions)"
)


@dataclass(frozen=True)
class SACLConfig(ModelConfig):
    """Options of `sacl`; the defaults are the paper's (its table 4), or inferred (see `SACL`).

    Args:
        backbone: timm's name, of a pyramid with maps at 1/4 to 1/32 of the image; the paper has
            ResT-Lite.
        image_size: side of the images in pixels.
        multi_scale: classify the maps of all four stages (MSFL); False for the last one only.
        scales: number of the coarsest stages that `multi_scale` takes, 1 to 4; for ablation.
        relations: classify the nodes of the self-adjusting graph too (SACL).
        fusion: "concat" classifies tokens and nodes together; for ablation "cross_attention", in
            which the nodes attend to the tokens and only the nodes are classified.
        correlation: "gcn" relates the nodes by the graph network; for ablation "transformer", which
            ignores `dims`, `depths`, `k`, `metric`, `conv` and `graph`.
        dims: width of the nodes in each stage of the graph network.
        depths: blocks of each stage.
        k: neighbors of a node, including itself.
        metric: distance between nodes: "l2", "l1", "cosine" or "dot".
        conv: graph convolution: "max_relative", "edge", "gin" or "sage".
        graph: "knn" for new neighbors in every block; for ablation "self" for no neighbors but the
            node itself; a fixed graph of the R regions: "facs", in a training run "statistics" (of
            its training labels), or (R, R), True in row i and column j for an edge from region j to
            i, as `aurel.facs.facs_graph` and `statistics_graph` return.
        roi_embed: a node is the mean of its region, "pool", or the flattened region, "flatten"; the
            default is "pool" for the graph network and "flatten" for the transformer, by table 8.
        roi_fraction: side of an AU's region, as a fraction of the map.
        landmark_widths: channels of the three blocks of the landmark predictor.
        token_dim: width to which the classifier reduces each token.
        extra_rules: an `AUCenter` for each AU that the paper's table 2 lacks, by AU number.
    """

    width_options: ClassVar[tuple[str, ...]] = ("dims",)

    backbone: str = "rest_lite"
    image_size: int = 224
    multi_scale: bool = True
    scales: int = 4
    relations: bool = True
    fusion: Fusion = "concat"
    correlation: Correlation = "gcn"
    dims: tuple[int, ...] = DIMS[:4]
    depths: tuple[int, ...] = DEPTHS[:4]
    k: int = 9
    metric: Metric = "l2"
    conv: Conv = "max_relative"
    graph: NamedGraph | Matrix = "knn"
    roi_embed: ROIEmbed = "pool"
    roi_fraction: float = 0.14
    landmark_widths: tuple[int, ...] = (64, 128, 256)
    token_dim: int = 64
    extra_rules: tuple[tuple[int, int, int, float], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.extra_rules, Mapping):
            rules = tuple((n, *rule.points, rule.offset) for n, rule in self.extra_rules.items())
            object.__setattr__(self, "extra_rules", rules)
        if isinstance(self.graph, Tensor):
            object.__setattr__(self, "graph", tuple(map(tuple, self.graph.bool().tolist())))

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the paper's k, or all regions where there are fewer, and the input of nodes."""
        embed = "flatten" if options.get("correlation") == "transformer" else "pool"
        if not options.get("relations", True):
            return {"roi_embed": embed}
        config = SACLConfig(extra_rules=options.get("extra_rules", ()))
        return {"k": min(9, config.center_rules(aus).num_nodes), "roi_embed": embed}

    @staticmethod
    def from_labels(aus: AUSet, options: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
        """Return the graph of ``graph="statistics"``, from training labels (M, N)."""
        rules = SACLConfig(extra_rules=options.get("extra_rules", ())).more_rules
        return graph_from_labels(options, aus, rules, labels)

    @property
    def more_rules(self) -> dict[int, AUCenter]:
        """The rules of `extra_rules`, by AU number."""
        return {n: AUCenter((left, right), down) for n, left, right, down in self.extra_rules}

    def center_rules(self, aus: AUSet) -> AUCenterRules:
        """Return the centers of the regions of `aus`; ValueError names AUs without a rule."""
        return au_center_rules(aus, self.more_rules)


@register_model(
    "sacl",
    SACLConfig,
    paper=_PAPER,
    outputs=("probs", "logits", "landmarks", "graphs"),
    losses={"asymmetric": 1.0, "dice": 1.0, "landmark": 0.5},
)
class SACL(AUModel):
    r"""SACL: a self-adjusting graph over AU regions, and multi-scale features.

    .. math::
        p = \sigma\big(W_2\, \mathrm{flatten}(W_1 [A' ; B])\big)

    :math:`A'` are the tokens of the four stages, resized and concatenated. For :math:`B`,
    landmarks are predicted from the stem's map, a region is cut from that map at each AU center,
    and each region is a node of a graph whose neighbors are computed again in every block.

    Args:
        config: options.
        aus: the N AUs. With `relations`, each needs a center rule: the paper's table 2 has 15 AUs,
            `extra_rules` takes others.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: AUs without a center rule, a fixed graph between other regions, more neighbors
            than regions, or options that exclude each other.

    Source: the paper, sections 3.2 to 3.5 and tables 2 and 4. The authors released no code. The
    values that the paper leaves open are inferred from the sizes in its table 8:

    - A node is the mean of its region, 64 wide; the text flattens the region, and with
      ``roi_embed="flatten"`` a linear map of it to 64 is the node.
    - The stages of the graph have the widths, the expansion, the groups and the batch norms of the
      vision GNN that the paper cites for its blocks, and a last layer to the width of the tokens,
      where that is another.
    - The classifier is a linear layer on each token and one over all tokens, without an activation
      between; without `multi_scale` and `relations` it is that of ResT-Lite: a linear layer on the
      mean of the last map.

    docs/models/sacl.md has the sizes and the options for the paper's ablations. Chosen here are the
    two fixed graphs (see their functions); `DIMS` and `DEPTHS` beyond four stages; that with fewer
    `scales` the maps are resized to the finest one that is left; that after the cross-attention
    only nodes are classified; and the widths of `NodeTransformer`.
    """

    config: SACLConfig

    def __init__(self, config: SACLConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        _check(config)
        self.backbone = build_backbone(config.backbone, pretrained=pretrained, final_norm=True)
        # Taps at 1/4 and coarser: the stem, if it has a tap, then the four stages.
        self._taps = [i for i, r in enumerate(self.backbone.reductions) if r >= 4]
        channels = [self.backbone.channels[i] for i in self._taps]
        sides = [-(-config.image_size // self.backbone.reductions[i]) for i in self._taps]
        self._scales = config.scales if config.multi_scale else 1
        width, tokens = sum(channels[-self._scales :]), sides[-self._scales] ** 2
        self.fusion = MultiScaleFusion()
        self.relations: RegionRelations | None = None
        self.look: CrossAttention | None = None
        if config.relations:
            self.relations = RegionRelations(config, aus, channels[0], width, sides[0])
            if config.fusion == "cross_attention":
                self.look = CrossAttention(width)
                tokens = 0
            tokens += self.relations.num_nodes
        self.classifier: nn.Module
        if config.multi_scale or config.relations:
            self.classifier = TokenClassifier(tokens, width, config.token_dim, len(aus))
        else:
            self.classifier = MeanClassifier(width, len(aus))

    @property
    def image_size(self) -> int:
        """Side in pixels that the images must have."""
        return self.config.image_size

    @property
    def center_rules(self) -> AUCenterRules | None:
        """The regions that are the nodes of the graphs; None without `relations`."""
        return self.config.center_rules(self.aus) if self.config.relations else None

    @property
    def landmark_predictor(self) -> LandmarkPredictor | None:
        """The predictor of the landmarks at which the regions are."""
        return None if self.relations is None else self.relations.landmarks

    @property
    def required_losses(self) -> Mapping[str, str]:
        """The landmark loss, where there are regions."""
        return {} if self.relations is None else {"landmark": _LANDMARK_LOSS}

    def forward(
        self, images: Tensor, landmarks: Tensor | None = None, *, return_graph: bool = False
    ) -> AUOutput:
        """Return `probs`, `logits`, and with `relations` the predicted `landmarks` in pixels.

        Args:
            images: (B, 3, S, S), S the config's `image_size`.
            landmarks: (B, 49, 2), x and y in pixels: regions are cut there, instead of at the
                predicted landmarks.
            return_graph: also return the graph of every block.

        Raises:
            ValueError: the images have another size.
        """
        size = self.config.image_size
        check_shape("images", images, "B 3 S S", S=size)
        maps = self.backbone(images)
        tokens = self.fusion([maps[i] for i in self._taps[-self._scales :]])
        predicted, graphs = None, None
        if self.relations is not None:
            nodes, predicted, graphs = self.relations(maps[self._taps[0]], landmarks)
            if self.look is None:
                tokens = torch.cat((tokens, nodes), dim=1)
            else:
                tokens = self.look(nodes, tokens)
        logits = at_least_float32(self.classifier(tokens))
        return self.couple(
            AUOutput(
                logits.sigmoid(),
                logits,
                landmarks=predicted,
                graphs=graphs if return_graph else None,
                aus=self.aus,
            ),
            return_graph,
        )

    if TYPE_CHECKING:
        __call__ = forward


class RegionRelations(nn.Module):
    """Predict landmarks, cut the regions at the AU centers, and relate them by a graph network."""

    def __init__(
        self, config: SACLConfig, aus: AUSet, channels: int, out_channels: int, map_size: int
    ) -> None:
        super().__init__()
        rules = config.center_rules(aus)
        self.image_size = (config.image_size, config.image_size)
        self.num_nodes = rules.num_nodes
        self.landmarks = LandmarkPredictor(
            channels, widths=config.landmark_widths, map_size=map_size
        )
        self.landmarks.reset_parameters(torch.tensor(MEAN_FACE_49))
        self.regions = LandmarkROI(rules.points, rules.offsets, fraction=config.roi_fraction)
        self.flatten = config.roi_embed == "flatten"
        if self.flatten:
            channels *= self.regions.window(map_size, map_size) ** 2
        self.graph: SelfAdjustingGCN | NodeTransformer
        if config.correlation == "transformer":
            self.graph = NodeTransformer(channels, out_channels)
            return
        graph = region_graph(config.graph, aus, config.more_rules, self.num_nodes)
        if config.graph == "knn":
            check_k(config.k, self.num_nodes)
        self.graph = SelfAdjustingGCN(
            channels,
            out_channels,
            dims=config.dims,
            depths=config.depths,
            k=config.k,
            metric=config.metric,
            conv=config.conv,
            graph=graph,
        )

    def forward(
        self, basic: Tensor, landmarks: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[RelationGraph, ...]]:
        """Return nodes (B, R, D), predicted landmarks (B, 49, 2), and the graphs."""
        predicted = self.landmarks(basic, self.image_size)
        regions = self.regions(
            basic, predicted if landmarks is None else landmarks, self.image_size
        )
        nodes = regions.flatten(2) if self.flatten else regions.mean((-2, -1))
        nodes, graphs = self.graph(nodes, return_graph=True)
        return nodes, predicted, graphs


class TokenClassifier(nn.Module):
    """Classify tokens by a linear layer on each token, then one on all tokens."""

    def __init__(self, tokens: int, channels: int, token_dim: int, num_aus: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, token_dim)
        self.linear = nn.Linear(tokens * token_dim, num_aus)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, N) for tokens (B, D, C)."""
        return self.linear(self.reduce(tokens).flatten(1))


class MeanClassifier(nn.Module):
    """Classify tokens by a linear layer on their mean."""

    def __init__(self, channels: int, num_aus: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_aus)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, N) for tokens (B, D, C)."""
        return self.linear(tokens.mean(1))


def _check(config: SACLConfig) -> None:
    check_choice("fusion", config.fusion, get_args(Fusion))
    check_choice("correlation", config.correlation, get_args(Correlation))
    check_choice("roi_embed", config.roi_embed, get_args(ROIEmbed))
    if config.fusion != "concat" and not config.relations:
        raise ValueError(
            f"relations must be True for fusion={config.fusion!r}, which attends from the nodes, "
            "got False"
        )
    if not 1 <= config.scales <= 4:
        raise ValueError(f"scales must be in 1..4, got {config.scales}")
