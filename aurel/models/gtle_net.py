"""GTLE-Net: from the expression of the whole face to maps of each AU (An et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from aurel.backbones.build import Backbone, architecture, build_network, data_config_of
from aurel.backbones.renormalize import Renormalize
from aurel.facs import AUSet
from aurel.layers.au_masked_features import AUMaskedFeatures
from aurel.layers.per_au_classifier import PerAUClassifier
from aurel.models.base import AUModel, ModelConfig
from aurel.models.expression_encoder import (
    PAPER,
    ExpressionEncoder,
    network_options,
)
from aurel.models.registry import Staging, register_model
from aurel.ops.arguments import check_choice
from aurel.output import AUOutput

LocalFeatures = Literal["masked", "maps", "none"]

_STRIDE = 16
_MAP_CHANNELS = 3


@dataclass(frozen=True)
class GTLENetConfig(ModelConfig):
    """Options of `gtle_net`; the defaults are the paper's, or inferred (see `GTLENet`).

    Args:
        backbone: the encoder, up to its last map at 1/16 of the image; the paper's is
            InceptionResnetV1, its table 10 also has "vgg16", "repvgg_a2" and "resnet50".
        local_features: "masked" for a feature map and a mask an AU; for ablation "maps" without
            masks, or "none": every classifier reads the encoder's map.
        freeze_encoder: for ablation, leave the encoder as it is, running statistics too.
        widths: channels of both extractors, see `AUMaskedFeatures`.
        bottlenecks: residual blocks before the upsampling of the feature maps.
        classifier_widths: channels of the blocks of an AU's classifier.
    """

    backbone: str = "inception_resnet_v1"
    local_features: LocalFeatures = "masked"
    freeze_encoder: bool = False
    widths: tuple[int, ...] = (512, 512, 256, 128, 64)
    bottlenecks: int = 2
    classifier_widths: tuple[int, ...] = (16, 32, 64, 128, 256)


def start_from_encoder(model: GTLENet, source: ExpressionEncoder) -> None:
    """Take the encoder's weights, as far as `model` has its layers.

    Raises:
        ValueError: the backbones differ.
    """
    ours, theirs = architecture(model.config.backbone), architecture(source.config.backbone)
    if ours != theirs:
        raise ValueError(f"the expression encoder is a {theirs}, the model's backbone is {ours}")
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
    (``model.init_from`` of a recipe). Rows of the paper's table 10, mean F1 on BP4D as reported:

    ========================  ====  ==============================================================
    w/o pretrain              50.5  no ``init_from``
    w. GEE fixed              63.5  ``freeze_encoder=True``
    w. GEE Emotion            64.3  ``backbone_weights`` of a classifier of seven emotions
    w. GEE ImageNet           62.4  ``backbone_weights`` of a classifier of ImageNet
    w. VGG16 ImageNet         62.1  ``backbone="vgg16", pretrained=True``
    w. RepVGG-A2 ImageNet     62.5  ``backbone="repvgg_a2", pretrained=True``
    w. ResNet50 ImageNet      64.1  ``backbone="resnet50", pretrained=True``
    w/o E_m & E_a             63.3  ``local_features="none"``
    w/o E_m                   64.0  ``local_features="maps"``
    w. Supervised-attention   64.7  ``losses.attention`` above 0 (needs landmarks)
    GTLE-Net (Full)           66.3  the defaults, ``init_from`` an expression encoder
    ========================  ====  ==============================================================

    Args:
        config: options.
        aus: the N AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: an option has a value that is not among its own, or the backbone has no map at
            1/16 of the image.

    Source: the paper, section 3. The authors released no code. What the paper leaves open:

    - InceptionResnetV1 has no 16 x 16 map of a 256-pixel image but 14 x 14, for want of padding.
      Here it is padded; names and shapes of its weights are the same. The map is that of its last
      block at 1/16.
    - The extractors' widths are those of the network that the paper names, see `MapDecoder`.
    - Where there are neither maps nor masks, the encoder's map itself is classified.
    - The paper updates "except for E_m" all parameters with Adam. Here all learn alike.

    Any image size of more than 16 pixels is served; the masks are 16 times the encoder's map.
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
        """Set the mode; a frozen encoder stays in eval mode, so that its statistics rest too."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor, return_graph: bool = False) -> AUOutput:
        """Predict.

        Args:
            images: (B, 3, H, W).
            return_graph: what other models take; this one relates no AUs and has no graph.

        Returns:
            `probs`, `logits` and, where the model has any, `masks`.
        """
        h, masks = self.backbone(self.renormalize(images))[0], None
        if self.features is None:
            maps = h.unsqueeze(1).expand(-1, len(self.aus), -1, -1, -1)
        else:
            maps, masks = self.features(h)
        logits = self.classifier(maps)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.couple(
            AUOutput(logits.sigmoid(), logits, masks=masks, aus=self.aus), return_graph
        )


def _encoder(name: str, pretrained: bool) -> Backbone:
    net = build_network(name, pretrained=pretrained, **network_options(name))
    taps = [index for index, tap in enumerate(net.feature_info) if tap["reduction"] == _STRIDE]
    if not taps:
        reductions = ", ".join(f"1/{tap['reduction']}" for tap in net.feature_info)
        raise ValueError(
            f"backbone must have a map at 1/{_STRIDE} of the image, {name} has {reductions}"
        )
    return Backbone(net, taps[-1:], data_config=data_config_of(net))
