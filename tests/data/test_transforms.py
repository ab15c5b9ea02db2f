"""Image, landmarks and labels are transformed together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD, standardize
from aurel.data.transforms import EvalTransform, TrainTransform, horizontal_flip, resize
from aurel.facs import FLIP_49, AUSet

BP4D = AUSet.of("BP4D")


def dotted(height: int, width: int, points: Tensor) -> Tensor:
    """Return a black image with a white square of 5 x 5 pixels at each point."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for x, y in points.round().long().tolist():
        image[:, y - 2 : y + 3, x - 2 : x + 3] = 255
    return image


def sample(height: int = 40, width: int = 40, aus: AUSet = BP4D) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    points = 14 + 12 * torch.rand(49, 2, generator=generator)
    points[:3] = torch.tensor([[15.0, 17.0], [26.0, 14.0], [16.0, 27.0]])
    return {
        "image": dotted(height, width, points[:3]),
        "labels": torch.arange(len(aus)).float(),
        "landmarks": points,
    }


def assert_dots_under(image: Tensor, points: Tensor, low: float) -> None:
    for x, y in points.round().long().tolist():
        assert image[:, y, x].min() > low, (x, y)


def test_evaluation_is_resize_and_center() -> None:
    out = EvalTransform(32, 28)(sample(64, 96))
    assert out["image"].shape == (3, 28, 28)
    white = (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    plain = EvalTransform(8, 8)({"image": torch.full((3, 8, 8), 255, dtype=torch.uint8)})
    assert torch.allclose(plain["image"], white.view(3, 1, 1).expand(3, 8, 8))


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 60), (57, 41)])
def test_landmarks_stay_on_the_picture(height: int, width: int) -> None:
    before = sample(height, width)
    out = EvalTransform(80, 72)(before)
    assert_dots_under(out["image"], out["landmarks"][:3], 0.0)


def test_resize_keeps_pixel_centers() -> None:
    before = {"image": torch.zeros(3, 10, 10, dtype=torch.uint8)}
    before["landmarks"] = torch.tensor([[0.0, 9.0], [4.5, 4.5]])
    out = resize(before, 20)
    assert out["landmarks"].tolist() == [[0.5, 18.5], [9.5, 9.5]]


@pytest.mark.parametrize("size", [24, 37])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_pil_image_is_resized_as_its_tensor(mode: str, size: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (24, 31, len(mode)), np.uint8)
    image = Image.fromarray(levels.squeeze())
    assert image.mode == mode
    planes = torch.from_numpy(levels).permute(2, 0, 1)
    resized = resize({"image": image}, size)["image"]
    assert torch.equal(resized, resize({"image": planes}, size)["image"])


def test_strides_of_an_image_change_nothing() -> None:
    image = torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8)
    other = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not other.is_contiguous()
    found = standardize(other)
    assert found.is_contiguous()
    assert torch.equal(found, standardize(image))


def test_training_moves_everything_together_and_stays_inside() -> None:
    transform = TrainTransform(BP4D, resize=40, crop=34, flip=0.5)
    shapes, flips = set(), 0
    for seed in range(40):
        torch.manual_seed(seed)
        before = sample(40, 52)
        out = transform(before)
        x = out["landmarks"][:, 0]
        flipped = not torch.allclose(x[1:] - x[:-1], before["landmarks"][:, 0].diff())
        flips += flipped
        points = out["landmarks"][list(FLIP_49)][:3] if flipped else out["landmarks"][:3]
        inside = points[((points >= 0) & (points < 34)).all(dim=1)]
        assert_dots_under(out["image"], inside, -0.5)
        shapes.add(tuple(out["image"].shape))
        assert before["image"].dtype == torch.uint8  # the input is not changed
    assert shapes == {(3, 34, 34)}
    assert 8 <= flips <= 32


def test_a_big_picture_is_resized_before_the_crop() -> None:
    out = TrainTransform(BP4D, resize=32, crop=28, flip=0)(
        {"image": torch.full((3, 512, 400), 90, dtype=torch.uint8), "labels": torch.zeros(12)}
    )
    assert out["image"].shape == (3, 28, 28)
    assert out["image"].std(dim=(1, 2)).max() < 1e-6  # without a border


def test_flip_twice_is_the_picture_again() -> None:
    aus = AUSet.of(["L12", "R12", 25])
    before = sample(aus=aus)
    once = horizontal_flip(before, aus)
    assert once["labels"].tolist() == [1, 0, 2]
    assert not torch.equal(once["image"], before["image"])
    twice = horizontal_flip(once, aus)
    assert torch.equal(twice["image"], before["image"])
    assert torch.allclose(twice["landmarks"], before["landmarks"])
    assert torch.equal(twice["labels"], before["labels"])


def test_flip_needs_both_sides() -> None:
    with pytest.raises(ValueError, match="must hold both sides of an AU to be mirrored"):
        horizontal_flip(sample(aus=AUSet.of(["L12"])), AUSet.of(["L12"]))


def test_jitter_changes_colors_only_as_asked() -> None:
    image = torch.randint(60, 190, (3, 32, 32), dtype=torch.uint8)
    still = TrainTransform(BP4D, 32, 32, flip=0, brightness=0, contrast=0, saturation=0)
    moved = TrainTransform(BP4D, 32, 32, flip=0)
    plain = EvalTransform(32, 32)({"image": image})["image"]
    assert torch.equal(still({"image": image})["image"], plain)
    assert not torch.equal(moved({"image": image})["image"], plain)


def test_evaluation_keeps_the_scale_of_training() -> None:
    transform = TrainTransform(BP4D, resize=72, crop=64)
    assert transform.evaluation() == EvalTransform(72, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 32, "crop": 33}, r"crop must be in 1..32 \(resize\), got 33"),
        ({"flip": 1.5}, "flip must be in 0..1, got 1.5"),
        ({"brightness": -0.1}, "brightness must be in 0..1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainTransform(BP4D, **arguments)
