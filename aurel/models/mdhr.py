"""MDHR: multi-scale facial dynamics and hierarchical AU relations (Wang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from timm.models import checkpoint_seq
from torch import Tensor
from torch.utils import _pytree as pytree

from aurel.data.arguments import check_at_least
from aurel.facs import AUSet, RegionGroup, RegionPlan, labels_from_regions, region_plan
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.cross_region_gat import CrossRegionGAT, Edges
from aurel.layers.facial_dynamics import FacialDynamics, Fusion, Gate, Padding
from aurel.layers.per_au_temporal_conv import PerAUTemporalConv
from aurel.layers.regional_au_features import RegionalAUFeatures
from aurel.models.author_keys import mdhr as author_keys
from aurel.models.base import AUModel, ModelConfig, relate
from aurel.models.me_graphau import make_trunk
from aurel.models.registry import register_model
from aurel.models.relation_head import couple_along
from aurel.models.windows import windows
from aurel.ops.arguments import check_choice, check_shape
from aurel.output import AUOutput

_SCALES = 4


@dataclass(frozen=True)
class MDHRConfig(ModelConfig):
    """Options of `mdhr`; those from `scales` on are for ablation.

    Args:
        backbone: timm's name of a network with four or more scales; the paper has ResNet-50 and
            Swin-B.
        channels: width C of a node; None for the authors' rule, a quarter of the backbone's last
            map for convolutional networks, a half for transformers.
        num_adjacent: frames k on either side whose motion enters the features of a frame.
        padding: motion beyond the ends of a clip: "zeros" as in the authors' code, "repeat" for the
            paper's repeated frames; see `FacialDynamics`.
        groups: AUs that share a region of the face, each (name, region, AU numbers) or a
            `RegionGroup`; None for the groups of `aurel.facs.region_plan`.
        group_projections: see `RegionalAUFeatures`; None for the authors' choice: True where two
            groups share a region, as for BP4D, False for DISFA.
        scales: maps of the backbone that give facial dynamics, 1 (finest) to 4; () for no dynamics.
        fusion: of the scales: "adaptive", "sum" or "cat"; see `FacialDynamics`.
        regional: take the features of each AU from its region; False for the mean of the face.
        auxiliary: classify the combination of AUs in every region.
        gate: weights of the scales in "adaptive" fusion: "bottleneck" as in the authors' code,
            "direct" for the paper's equation 4; see `FacialDynamics`.
        edges: the edges between AUs, see `CrossRegionGAT`; None for no graph.
        edge_regions: what counts as a region for `edges`: "groups", the groups of AUs, as in the
            authors' code, or "face" for the upper, middle and lower face, as in the paper. They
            differ where two groups share a region, as for BP4D.
        temporal: filter the nodes along time.
    """

    width_options: ClassVar[tuple[str, ...]] = ("channels",)

    backbone: str = "resnet50"
    channels: int | None = None
    num_adjacent: int = 5
    padding: Padding = "zeros"
    groups: tuple[tuple[str, str, tuple[int, ...]], ...] | None = None
    group_projections: bool | None = None
    scales: tuple[int, ...] = (1, 2, 3, 4)
    fusion: Fusion = "adaptive"
    regional: bool = True
    auxiliary: bool = True
    gate: Gate = "bottleneck"
    edges: Edges | None = "active_cross_region"
    edge_regions: Literal["groups", "face"] = "groups"
    temporal: bool = True

    def __post_init__(self) -> None:
        if self.groups is not None:
            groups = tuple(
                (group.name, group.region, group.numbers)
                if isinstance(group, RegionGroup)
                else group
                for group in self.groups
            )
            for group in groups:
                if len(group) != 3:
                    raise ValueError(f"groups must be (name, region, AU numbers) each, got {group}")
            object.__setattr__(self, "groups", groups)
        check_choice("edge_regions", self.edge_regions, ("groups", "face"))
        if list(self.scales) != sorted({*self.scales} & {*range(1, _SCALES + 1)}):
            raise ValueError(f"scales must be ascending, of 1..{_SCALES}, got {self.scales}")
        if not self.regional and (self.auxiliary or self.edges is not None):
            raise ValueError(
                "auxiliary must be False and edges None where regional is False, got "
                f"{self.auxiliary} and {self.edges!r}"
            )
        if not self.auxiliary and (self.edges or "").startswith("active"):
            raise ValueError(
                f"auxiliary must be True for edges={self.edges!r}, which use its predictions, got "
                "False"
            )

    def region_plan(self, aus: AUSet) -> RegionPlan:
        """Return the groups of `aus`; ValueError where `groups` does not fit it."""
        groups: Any = self.groups
        return region_plan(aus, groups and [RegionGroup(*group) for group in groups])


@register_model(
    "mdhr",
    MDHRConfig,
    paper=(
        "Wang et al., Multi-scale Dynamic and Hierarchical Relationship Modeling for Facial Action "
        "Units Recognition, CVPR 2024, arXiv:2404.06443"
    ),
    outputs=("probs", "region_logits", "graphs"),
    losses={"asymmetric": 1.0, "region": 0.01},
    author_layout=author_keys.LAYOUT,
)
class MDHR(AUModel):
    r"""MDHR: motion at several scales, and AU relations within and across regions of the face.

    .. math::
        G^t &= \mathrm{proj}(x_4^t) + \mathrm{MFD}(x_1, \dots, x_4)^t, \qquad
        (v^t, z^t) = \mathrm{LRM}(G^t) \\
        p_n^t &= \cos\big(\mathrm{TCN}_n(\mathrm{CRM}(v, a(z)))^t, \mathrm{ReLU}(s_n)\big)

    :math:`x_l` are maps of the backbone, MFD is `FacialDynamics`, LRM `RegionalAUFeatures`, CRM
    `CrossRegionGAT` and TCN `PerAUTemporalConv`. The activation :math:`a` of each AU, on which the
    edges depend, is that of the most likely combination of its region; no gradient passes through
    it, and labels are never used. docs/models/mdhr.md lists the options for the paper's ablations.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an option has a value that is not among its own, or `groups` does not fit `aus`.

    Source: the paper, and the authors' code where they differ (see the layers). The paper has the
    region heads in training only, but the edges always depend on them. Scales 1 to 4 of Swin are
    the inputs of its stages, as in the code; the paper has the outputs. With ``regional=False`` the
    node of every AU is the mean of the face, which the paper does not define.
    """

    inputs = "clips"
    config: MDHRConfig

    def __init__(self, config: MDHRConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        taps = range(-_SCALES, 0) if config.scales else (-1,)
        self.backbone, self.projection = make_trunk(
            config.backbone, config.channels, pretrained, taps
        )
        channels, nodes = self.projection.out_channels, len(aus)
        self.dynamics: FacialDynamics | None = None
        if config.scales:
            widths, reductions = self.backbone.channels, self.backbone.reductions
            self.dynamics = FacialDynamics(
                [widths[scale - 1] for scale in config.scales],
                [reductions[-1] // reductions[scale - 1] for scale in config.scales],
                widths[-1],
                channels,
                config.num_adjacent,
                fusion=config.fusion,
                gate=config.gate,
                padding=config.padding,
            )
        self.features: RegionalAUFeatures | None = None
        self.relation: CrossRegionGAT | None = None
        if config.regional:
            plan = config.region_plan(aus)
            projections = config.group_projections
            if projections is None:
                projections = len(set(plan.regions)) < len(plan.regions)
            self.features = RegionalAUFeatures(
                channels, plan, group_projections=projections, auxiliary=config.auxiliary
            )
            if config.edges is not None:
                regions = plan.group_of if config.edge_regions == "groups" else plan.region_of
                self.relation = CrossRegionGAT(channels, regions, edges=config.edges)
        self.temporal = PerAUTemporalConv(channels, nodes) if config.temporal else None
        self.classifier = CosineClassifier(channels, nodes)

    @property
    def region_plan(self) -> RegionPlan | None:
        """The groups of AUs of `AUOutput.region_logits`; None without `auxiliary`."""
        return self.features.plan if self.features is not None and self.config.auxiliary else None

    @property
    def context(self) -> int:
        """Number of frames on either side that the probabilities of a frame depend on."""
        motion = self.config.num_adjacent if self.dynamics is not None else 0
        return motion + (self.temporal.kernel_size // 2 if self.temporal is not None else 0)

    def forward(self, clips: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return predictions for every frame.

        Args:
            clips: (B, T, 3, H, W), T consecutive frames each; sides are multiples of 32 pixels.
            return_graph: also return the attention between AUs.

        Returns:
            `probs` (B, T, N); `region_logits`, (B, T, P_g) for each group; and, if asked for, the
            graph: a batch of B T graphs, one for each frame, clip by clip.
        """
        check_shape("clips", clips, "B T C H W", C=3)
        frames = clips.shape[:2]
        maps = self._maps(clips.flatten(0, 1))
        last = maps[-1]
        face = self.projection(last.flatten(2).mT).unflatten(1, last.shape[2:])
        if self.dynamics is not None:
            moving = [maps[scale - 1].unflatten(0, frames) for scale in self.config.scales]
            face = face + self.dynamics(moving).flatten(0, 1)
        logits: tuple[Tensor, ...] = ()
        if self.features is not None:
            nodes, logits = self.features(face)
        else:
            nodes = face.mean((1, 2)).unsqueeze(1).expand(-1, len(self.aus), -1)
        graph = None
        if self.relation is not None:
            active = self._active(logits)
            nodes, graph = relate(self.relation, nodes, active, return_graph=return_graph)
        if self.temporal is not None:
            nodes = self.temporal(nodes.unflatten(0, frames)).flatten(0, 1)
        probs = self.classifier(nodes.relu())
        return self.couple(
            AUOutput(
                probs.unflatten(0, frames),
                region_logits=tuple(group.unflatten(0, frames) for group in logits) or None,
                graphs=None if graph is None else (graph,),
                aus=self.aus,
            ),
            return_graph,
        )

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps that give dynamics, finest first, and the last one of the backbone."""
        if self.config.backbone.startswith("swin_"):
            self.backbone.check_size(images)
            return _swin_maps(self.backbone.net, images)
        return self.backbone(images)

    def _active(self, logits: tuple[Tensor, ...]) -> Tensor | None:
        """Return which AUs the region heads predict as present, (B T, N)."""
        if not logits:
            return None
        assert self.features is not None
        combined = torch.stack([group.argmax(-1) for group in logits], dim=-1)
        return labels_from_regions(combined, self.features.plan)


CHAIN_LAG = 32
"""Frames after a frame from which `stream` infers it, with a relation head "chain"."""


def stream(model: MDHR, frames: Iterable[Tensor], chunk: int = 64) -> Iterator[AUOutput]:
    """Predict a video of any length; the result equals that of the whole video as one clip.

    The model runs on windows of `chunk` frames with `model.context` frames on either side, so
    memory does not grow with the video. A relation head "chain" infers each frame from all before
    it and the 32 after it.

    Args:
        model: in eval mode.
        frames: in order, each (3, H, W), on the model's device.
        chunk: frames of one output.

    Yields:
        The outputs (1, n, ...) of the next n frames; n is `chunk`, except at the end.

    Raises:
        ValueError: `chunk` is below 1, or the model is in training mode, where the prediction of a
            frame would depend on the batch statistics of its window.
    """
    check_at_least("chunk", chunk, 1)
    if model.training:
        raise ValueError("model must be in eval mode, got one in training mode")
    outputs: Iterator[AUOutput] = (
        _predict(model, *window) for window in windows(frames, chunk, model.context)
    )
    head = model.relation_head
    if head is not None and head.kind == "chain":
        outputs = couple_along(head, outputs, CHAIN_LAG)
    yield from outputs


@torch.no_grad()
def _predict(model: MDHR, window: list[Tensor], start: int, stop: int) -> AUOutput:
    out = model(torch.stack(window).unsqueeze(0))
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[:, start:stop], out)


def _swin_maps(net: Any, images: Tensor) -> list[Tensor]:
    """Return the inputs of all stages, and the normalized output of the last one."""
    x, maps = net.patch_embed(images), []
    for stage in net.layers:
        x = stage.downsample(x)
        maps.append(x.permute(0, 3, 1, 2))
        x = checkpoint_seq(stage.blocks, x) if stage.grad_checkpointing else stage.blocks(x)
    return [*maps, net.norm(x).permute(0, 3, 1, 2)]
