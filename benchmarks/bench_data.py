"""Measure the input of training: rendering faces, reading and augmenting photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_image
from torchvision.transforms import v2

from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from aurel.data.images import open_rgb
from aurel.data.synthetic import SyntheticFaces
from aurel.data.transforms import EvalTransform, TrainTransform
from aurel.facs import AUSet


@pytest.mark.sizes(cpu=[{"images": 200, "pixels": 96}, {"images": 60, "pixels": 224}], cuda=[])
def test_synthetic_faces(size: dict[str, int], versus: Any) -> None:
    subjects = range(size["images"] // 20)

    def draw() -> torch.Tensor:
        return SyntheticFaces("BP4D", subjects, 20, size["pixels"], seed=0).images.float()

    versus("SyntheticFaces", size, "draw", {"aurel": draw})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread, as each worker of a DataLoader does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.sizes(cpu=[{"images": 16, "pixels": 256}], cuda=[])
def test_read_and_augment(size: dict[str, int], versus: Any, tmp_path: Path) -> None:
    files = photographs(size, tmp_path)
    transform = TrainTransform(AUSet.of("BP4D"))

    def read() -> torch.Tensor:
        torch.manual_seed(0)
        pictures = [torch.from_numpy(np.array(open_rgb(file))).permute(2, 0, 1) for file in files]
        return torch.stack([transform({"image": picture})["image"] for picture in pictures])

    versus("read, crop, jitter", size, "training", {"aurel": read})


@pytest.mark.usefixtures("one_thread")
@pytest.mark.sizes(cpu=[{"images": 16, "pixels": 320}], cuda=[])
def test_read_and_resize(size: dict[str, int], versus: Any, tmp_path: Path) -> None:
    files = photographs(size, tmp_path)
    transform = EvalTransform()
    plain = v2.Compose(
        [
            v2.Resize(transform.resize),
            v2.CenterCrop(transform.crop),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def aurel() -> torch.Tensor:
        return torch.stack([transform({"image": open_rgb(file)})["image"] for file in files])

    def torchvision() -> torch.Tensor:
        return torch.stack([plain(decode_image(str(file))) for file in files])

    versus("read, resize, crop", size, "inference", {"aurel": aurel, "torchvision": torchvision})


def photographs(size: dict[str, int], folder: Path) -> list[Path]:
    """Save rendered faces as JPEG files, and return their paths."""
    faces = SyntheticFaces("BP4D", range(1), size["images"], size["pixels"], seed=0).images
    files = [folder / f"{i}.jpg" for i in range(len(faces))]
    for file, face in zip(files, faces, strict=True):
        Image.fromarray(face.permute(1, 2, 0).numpy()).save(file, quality=90)
    return files
