"""The expression encoder that GTLE-Net starts from (An et al., Applied Intelligence 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from aurel.backbones.batch_norms import activated_norm, check_activations
from aurel.backbones.build import architecture, build_network, data_config_of
from aurel.backbones.renormalize import Renormalize
from aurel.facs import AUSet
from aurel.models.base import AUModel, ModelConfig
from aurel.models.registry import register_model
from aurel.ops.distances import at_least_float32

PAPER = (
    "An, Jin, Chen et al., Learning facial expression-aware global-to-local representation for "
    "robust action unit detection, Applied Intelligence 2024, arXiv:2210.15160"
)


@dataclass(frozen=True)
class ExpressionEncoderConfig(ModelConfig):
    """Options of `expression_encoder`.

    Args:
        backbone: timm's name; the paper has InceptionResnetV1, and in its table 1 VGG16, ResNet-50
            and RepVGG-A2 ("vgg16", "resnet50", "repvgg_a2").
        dim: width of the embedding.
    """

    backbone: str = "inception_resnet_v1"
    dim: int = 16


@register_model(
    "expression_encoder",
    ExpressionEncoderConfig,
    paper=PAPER,
    outputs=(),
    losses={"triplet": 1.0},
)
class ExpressionEncoder(AUModel):
    r"""Map faces to the unit sphere, so that faces of similar expressions are close.

    .. math:: E = \frac{W g(x) + b}{\lVert W g(x) + b \rVert_2}

    with the backbone g. It does not predict AUs: it is trained on triplets of faces
    (`aurel.data.triplets`), and `gtle_net` starts from its early layers.

    Args:
        config: options.
        aus: the AUs of the data; the embedding does not depend on them.
        pretrained: load the published weights of the backbone.

    Source: the paper, section 3.2. The linear layer replaces the last classifier, so
    InceptionResnetV1 keeps its layer of width 512 before it. That network has "same" padding, so
    that its maps are at exact fractions of the image, as the paper's map of 16 x 16 requires.
    """

    inputs = "triplets"
    config: ExpressionEncoderConfig

    def __init__(
        self, config: ExpressionEncoderConfig, aus: AUSet, *, pretrained: bool = False
    ) -> None:
        super().__init__(config, aus)
        self.net = build_network(
            config.backbone, pretrained=pretrained, **network_options(config.backbone)
        )
        self.net.reset_classifier(config.dim)
        self._activated_norm = activated_norm(self.net)
        data = data_config_of(self.net)
        self.renormalize = Renormalize(data["mean"], data["std"])

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (..., dim) of length 1 for images (..., 3, H, W)."""
        check_activations(self.net, self._activated_norm)
        embedding = self.net(self.renormalize(images.reshape(-1, *images.shape[-3:])))
        embedding = F.normalize(at_least_float32(embedding), dim=-1)
        return embedding.reshape(*images.shape[:-3], -1)

    if TYPE_CHECKING:
        # An encoder is the only model that returns no `AUOutput`.
        __call__ = forward  # type: ignore[assignment]

    def load_backbone(self, path: str | Path) -> None:
        """Load a file of backbone weights, as `build_network(checkpoint=...)` reads it.

        Raises:
            FileNotFoundError: no such file.
            RuntimeError: the weights do not fit the backbone.
            ValueError: the file holds no state dict.
        """
        loaded = build_network(self.config.backbone, checkpoint=path).state_dict()
        self.net.load_state_dict({**self.net.state_dict(), **loaded})


def network_options(backbone: str) -> dict[str, Any]:
    """Return the options of `build_network` for this backbone."""
    return {"padding": "same"} if architecture(backbone) == "inception_resnet_v1" else {}
