"""A very small model and data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from PIL import Image

from aurel.models import registry


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    tiny_model.register()
    yield
    del registry._models["tiny"]


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BP4D of 16-pixel images: color channels show three AUs, the others are absent."""
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
