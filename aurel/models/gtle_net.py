"""GTLE-Net: an expression encoder, then masked maps of each AU (An et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from aurel.backbones.build import Backbone, architecture, build_network, data_config_of
from aurel.backbones.renormalize import Renormalize
from aurel.facs import AUSet
from aurel.layers.au_masked_features import AUMaskedFeatures
from aurel.layers.per_au_classifier import PerAUClassifier
from aurel.models.base import AUModel, ModelConfig
from aurel.models.expression_encoder import PAPER, ExpressionEncoder, network_options
from aurel.models.registry import Staging, register_model
from aurel.ops.arguments import check_choice
from aurel.ops.distances import at_least_float32
from aurel.output import AUOutput

LocalFeatures = Literal["masked", "maps", "none"]

_STRIDE = 16
_MAP_CHANNELS = 3


@dataclass(frozen=True)
class GTLENetConfig(ModelConfig):
    """Options of `gtle_net`; the defaults are the paper's, or inferred (see `GTLENet`).

    Args:
        backbone: timm's name of the encoder, which is cut after its last map at 1/16 of the image;
            the paper has InceptionResnetV1, and in its table 10 "vgg16", "repvgg_a2", "resnet50".
        local_features: "masked" for a feature map and a mask for each AU; for ablation "maps"
            without masks, or "none": every classifier takes the encoder's map.
        freeze_encoder: for ablation, do not train the encoder nor update its running statistics.
        widths: channels of both decoders, see `AUMaskedFeatures`.
        bottlenecks: residual blocks before the upsampling of the feature maps.
        classifier_widths: channels of the blocks of the classifier of an AU.
    """

    backbone: str = "inception_resnet_v1"
    local_features: LocalFeatures = "masked"
    freeze_encoder: bool = False
    widths: tuple[int, ...] = (512, 512, 256, 128, 64)
    bottlenecks: int = 2
    classifier_widths: tuple[int, ...] = (16, 32, 64, 128, 256)


def start_from_encoder(model: GTLENet, source: ExpressionEncoder) -> None:
    """Copy the weights of the encoder's layers that `model` has.

    Raises:
        ValueError: the backbones differ.
    """
    expected, found = architecture(model.config.backbone), architecture(source.config.backbone)
    if found != expected:
        raise ValueError(f"the expression encoder must be a {expected}, got {found}")
    state = source.net.state_dict()
    net = model.backbone.net
    net.load_state_dict({name: state[name] for name in net.state_dict()})


@register_model(
    "gtle_net",
    GTLENetConfig,
    paper=PAPER,
    outputs=("probs", "logits", "masks"),
    losses={"bce_sum": 1.0},
    starts_from={"expression_encoder": Staging(start_from_encoder, ("features.", "classifier."))},
    image_size=256,
)
class GTLENet(AUModel):
    r"""GTLE-Net: an expression encoder, then a masked feature map and a classifier for every AU.

    .. math::
        p_n = \sigma\big(g_n(m_n \odot f_n)\big), \qquad
        [f_1 \dots f_N] = E_a(h), \quad [m_1 \dots m_N] = E_m(h), \quad h = \mathrm{GEE}(x)

    The encoder starts from an `expression_encoder` that was trained on triplets of faces
    (``model.init_from`` of a recipe). docs/models/gtle_net.md lists the options for the paper's
    ablations.

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an option has a value that is not among its own, or the backbone has no map at
            1/16 of the image.

    Source: the paper, section 3. The authors released no code. The paper leaves open:

    - InceptionResnetV1 without padding has a map of 14 x 14 at 256 pixels; the paper has 16 x 16.
      Here it is padded; names and shapes of its weights are the same. The map is the output of its
      last block at 1/16.
    - The widths of the decoders are those of the network that the paper names, see `MapDecoder`.
    - Without maps and masks, the classifiers take the encoder's map itself.
    - The paper updates all parameters "except for E_m" with Adam. Here all are trained alike.

    Images may have any size above 16 pixels; the side of the masks is 16 times that of the map.
    """

    config: GTLENetConfig

    def __init__(self, config: GTLENetConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        check_choice("local_features", config.local_features, get_args(LocalFeatures))
        self.backbone = _encoder(config.backbone, pretrained)
        data = self.backbone.data_config
        self.renormalize = Renormalize(data["mean"], data["std"])
        width = self.backbone.channels[0]
        self.features: AUMaskedFeatures | None = None
        if config.local_features != "none":
            self.features = AUMaskedFeatures(
                width,
                len(aus),
                _MAP_CHANNELS,
                config.widths,
                config.bottlenecks,
                masked=config.local_features == "masked",
            )
            width = _MAP_CHANNELS
        self.classifier = PerAUClassifier(width, len(aus), config.classifier_widths)
        if config.freeze_encoder:
            self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> GTLENet:
        """Set the mode; a frozen encoder stays in eval mode, so its statistics do not change."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        """Return `probs`, `logits` and, where the model has them, `masks`.

        Args:
            images: (B, 3, H, W).
            return_graph: ignored, because this model has no graph; an argument of every model.
        """
        face, masks = self.backbone(self.renormalize(images))[0], None
        if self.features is None:
            maps = face.unsqueeze(1).expand(-1, len(self.aus), -1, -1, -1)
        else:
            maps, masks = self.features(face)
        logits = at_least_float32(self.classifier(maps))
        output = AUOutput(logits.sigmoid(), logits, masks=masks, aus=self.aus)
        return self.couple(output, return_graph)


def _encoder(name: str, pretrained: bool) -> Backbone:
    net = build_network(name, pretrained=pretrained, **network_options(name))
    taps = [index for index, tap in enumerate(net.feature_info) if tap["reduction"] == _STRIDE]
    if not taps:
        reductions = ", ".join(f"1/{tap['reduction']}" for tap in net.feature_info)
        raise ValueError(
            f"backbone must have a map at 1/{_STRIDE} of the image, got {name} with {reductions}"
        )
    return Backbone(net, taps[-1:], data_config=data_config_of(net))
