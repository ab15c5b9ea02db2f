"""A model that trains in no time, entered into the registry like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.models import registry
from aurel.output import AUOutput


@dataclass(frozen=True)
class TinyConfig:
    """Options of the stand-in.

    Args:
        width: channels.
        image_size: side of the images.
    """

    width: int = 4
    image_size: int = 16


class Tiny(nn.Module):
    """Coloured stripes to AU probabilities, with landmarks and pairs of AUs."""

    def __init__(self, config: TinyConfig, aus: AUSet, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config, self.aus = config, aus
        self.conv = nn.Conv2d(3, config.width, 4, 4)
        side = config.image_size // 4
        self.linear = nn.Linear(config.width * side**2, len(aus))
        self.edges = nn.Linear(config.width * side**2, 4 * len(aus) ** 2)
        self.points = nn.Linear(config.width * side**2, 98)

    def forward(self, images: Tensor) -> AUOutput:
        features = self.conv(images).relu().flatten(1)
        count = len(self.aus)
        return AUOutput(
            probs=self.linear(features).sigmoid(),
            edge_logits=self.edges(features).unflatten(1, (count, count, 4)),
            landmarks=self.points(features).unflatten(1, (49, 2)),
            aus=self.aus,
        )


@pytest.fixture(scope="session", autouse=True)
def tiny_model() -> Iterator[str]:
    registry.list_models()
    registry.register_model("tiny", TinyConfig, paper="none", outputs=("probs",))(Tiny)
    yield "tiny"
    del registry._models["tiny"]


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BP4D of 16-pixel images in which three channels show three AUs; the rest is absent."""
    from PIL import Image

    root = tmp_path_factory.mktemp("data") / "BP4D"
    generator = torch.Generator().manual_seed(0)
    people = {"train": ["F001", "F002", "M001", "M002", "F003"], "test": ["F009", "M009"]}
    (root / "list").mkdir(parents=True)
    for split, names in people.items():
        paths, labels = [], []
        for name in names:
            for number in range(8):
                present = torch.rand(3, generator=generator) < 0.5
                noise = torch.randint(0, 60, (16, 16, 3), generator=generator)
                pixels = (noise + 190 * present).to(torch.uint8)
                path = f"{name}/T1/{number}.png"
                (root / "img" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(root / "img" / path)
                paths.append(path)
                labels.append(" ".join(map(str, [*present.int().tolist(), *[0] * 9])))
        (root / "list" / f"BP4D_{split}_img_path_fold1.txt").write_text("\n".join(paths))
        (root / "list" / f"BP4D_{split}_label_fold1.txt").write_text("\n".join(labels))
    return root
