"""The base of every model: its options, its AUs, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from torch import Tensor, nn

from aurel.backbones.build import Backbone, build_backbone
from aurel.facs import AUCenterRules, AUSet, RegionPlan
from aurel.graph import RelationGraph
from aurel.layers.landmark_predictor import LandmarkPredictor
from aurel.models.relation_head import RelationHead, RelationHeadKind
from aurel.output import AUOutput

Inputs = Literal["images", "clips", "triplets"]


@dataclass(frozen=True)
class ModelConfig:
    """Options of a model; every model has a subclass with options of its own.

    Attributes:
        width_options: names of the options that set the widths of layers. Models that differ in
            one of them share no weights.

    Args:
        backbone: timm's name of the image backbone.
        relation_head: exact inference over the AUs on top of the model, see `RelationHead`:
            "pairwise", for models of clips also "chain"; None for none, as published.
    """

    width_options: ClassVar[tuple[str, ...]] = ()

    backbone: str
    relation_head: RelationHeadKind | None = None

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that depend on the AUs, given the caller's `options`."""
        return {}

    @staticmethod
    def from_labels(aus: AUSet, options: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
        """Return the values of those `options` that are computed from labels.

        Args:
            aus: the N AUs.
            options: the caller's options.
            labels: (M, N), 1 present, 0 absent, -1 unknown; of the training data.
        """
        return {}


class AUModel(nn.Module):
    """Base of the models that `create_model` makes.

    A subclass sets `backbone`, implements ``forward(images, *, return_graph=False)``, and overrides
    the properties below that differ for it. Further tensors of `forward` follow the images.

    Args:
        config: options.
        aus: the N AUs, in the order of the columns of `AUOutput.probs`.
        pretrained: load the published weights of the backbone; the subclass does so.

    Attributes:
        inputs: "images" (B, 3, H, W), "clips" of consecutive frames (B, T, 3, H, W), or "triplets"
            of faces (B, 3, 3, H, W). A model of triplets is an encoder: it returns embeddings
            instead of an `AUOutput`, and predicts no AUs.
        trained_on: names of the data that the weights were trained on; empty where unknown.
        preprocessing: `size` in pixels, `alignment`, `mean` and `std` of the images that the
            weights were trained on; None where unknown.
    """

    inputs: ClassVar[Inputs] = "images"
    config: ModelConfig
    backbone: Backbone
    trained_on: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] | None = None

    def __init__(self, config: ModelConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.aus = aus
        self.relation_head = self._make_relation_head(config.relation_head)

    if TYPE_CHECKING:

        def __call__(self, images: Tensor, /, *, return_graph: bool = False) -> AUOutput: ...

    def _make_relation_head(self, kind: RelationHeadKind | None) -> RelationHead | None:
        if kind is None:
            return None
        if self.inputs == "triplets" or (kind == "chain" and self.inputs != "clips"):
            raise ValueError(
                f"relation_head {kind!r} must have a model of "
                f"{'clips' if kind == 'chain' else 'AUs'}, got one of {self.inputs}"
            )
        return RelationHead(kind, len(self.aus))

    def couple(self, output: AUOutput, return_graph: bool = False) -> AUOutput:
        """Return `output` with the AUs coupled by the relation head, where there is one."""
        return output if self.relation_head is None else self.relation_head(output, return_graph)

    @property
    def image_size(self) -> int | None:
        """Side in pixels that the images must have; None where any size is valid."""
        return None

    @property
    def context(self) -> int:
        """Number of frames on either side that the probabilities of a frame depend on."""
        return 0

    @property
    def region_plan(self) -> RegionPlan | None:
        """The groups of AUs of `AUOutput.region_logits`; None without region logits."""
        return None

    @property
    def center_rules(self) -> AUCenterRules | None:
        """The regions that are the nodes of the graphs; None where the nodes are AUs."""
        return None

    @property
    def landmark_predictor(self) -> LandmarkPredictor | None:
        """The layer that predicts landmarks, which training starts near the mean face; or None."""
        return None

    @property
    def required_losses(self) -> Mapping[str, str]:
        """The losses without which a part of the model gets no gradient, each with the reason."""
        return {}

    def save_pretrained(self, folder: str | Path, **card: Any) -> None:
        """Write the model into a folder; see `aurel.models.hub.save_pretrained`."""
        from aurel.models.hub import save_pretrained

        save_pretrained(self, folder, **card)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Return a model of this class from a folder or the Hugging Face hub.

        Raises:
            ValueError: the model is of another class; see also
                `aurel.models.hub.from_pretrained`.
        """
        from aurel.models.hub import from_pretrained

        model = from_pretrained(source, revision=revision)
        if not isinstance(model, cls):
            raise ValueError(
                f"source must hold a model of class {cls.__name__}, got {type(model).__name__} in "
                f"{source}"
            )
        return model

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Upload the model to the Hugging Face hub; see `aurel.models.hub.push_to_hub`."""
        from aurel.models.hub import push_to_hub

        return push_to_hub(self, repo, **options)

    def load_backbone(self, path: str | Path) -> None:
        """Load a file of backbone weights, as `build_backbone(checkpoint=...)` reads it.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: the weights do not fit the backbone.
            ValueError: the file holds no state dict.
        """
        backbone = self.backbone
        loaded = build_backbone(
            self.config.backbone,
            checkpoint=path,
            out_indices=backbone.out_indices,
            final_norm=backbone.final_norm,
        )
        backbone.load_state_dict(loaded.state_dict())


def relate(
    layer: nn.Module, *inputs: Tensor | None, return_graph: bool, **options: Any
) -> tuple[Any, RelationGraph | None]:
    """Return what a relation layer returns for `inputs`, and its graph or None.

    Args:
        layer: a layer that takes `return_graph`.
        *inputs: its tensors.
        return_graph: also return the graph that the layer built.
        **options: further arguments of the layer.
    """
    if return_graph:
        outputs, graph = layer(*inputs, return_graph=True, **options)
        return outputs, graph
    return layer(*inputs, **options), None
