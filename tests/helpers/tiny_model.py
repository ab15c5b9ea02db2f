"""A very small model without batch norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.models import registry
from aurel.models.base import AUModel, ModelConfig
from aurel.output import AUOutput


@dataclass(frozen=True)
class TinyConfig(ModelConfig):
    """Options of the small model.

    Args:
        backbone: not used.
        width: channels.
        image_size: side of the images.
    """

    backbone: str = "none"
    width: int = 4
    image_size: int = 16


class Tiny(AUModel):
    """Compute AU probabilities from blocks of pixels."""

    config: TinyConfig

    def __init__(self, config: TinyConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__(config, aus)
        self.conv = nn.Conv2d(3, config.width, 4, 4)
        self.linear = nn.Linear(config.width * (config.image_size // 4) ** 2, len(aus))

    @property
    def image_size(self) -> int:
        return self.config.image_size

    def forward(self, images: Tensor, *, return_graph: bool = False) -> AUOutput:
        features = self.conv(images).relu().flatten(1)
        output = AUOutput(self.linear(features).sigmoid(), aus=self.aus)
        return self.couple(output, return_graph)


def register() -> None:
    """Register the model as `tiny`."""
    registry.list_models()
    registry.register_model(
        "tiny", TinyConfig, paper="none", outputs=("probs",), losses={"asymmetric": 1.0}
    )(Tiny)
