"""What feeds a training run: faces drawn on the fly, photographs read and augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aurel.data.images import open_rgb
from aurel.data.synthetic import SyntheticFaces
from aurel.data.transforms import TrainTransform
from aurel.facs import AUSet


@pytest.mark.sizes(cpu=[{"images": 200, "pixels": 96}, {"images": 60, "pixels": 224}], cuda=[])
def test_synthetic_faces(size: dict[str, int], versus: Any) -> None:
    subjects = range(size["images"] // 20)

    def draw() -> torch.Tensor:
        return SyntheticFaces("BP4D", subjects, 20, size["pixels"], seed=0).images.float()

    versus("SyntheticFaces", size, "draw", {"aurel": draw})


@pytest.mark.sizes(cpu=[{"images": 16, "pixels": 256}], cuda=[])
def test_read_and_augment(size: dict[str, int], versus: Any, tmp_path: Path) -> None:
    faces = SyntheticFaces("BP4D", range(1), size["images"], size["pixels"], seed=0).images
    files = [tmp_path / f"{i}.jpg" for i in range(len(faces))]
    for file, face in zip(files, faces, strict=True):
        Image.fromarray(face.permute(1, 2, 0).numpy()).save(file, quality=90)
    transform = TrainTransform(AUSet.of("BP4D"))

    def read() -> torch.Tensor:
        torch.manual_seed(0)
        pictures = [torch.from_numpy(np.array(open_rgb(file))).permute(2, 0, 1) for file in files]
        return torch.stack([transform({"image": picture})["image"] for picture in pictures])

    versus("read, crop, jitter", size, "training", {"aurel": read})
