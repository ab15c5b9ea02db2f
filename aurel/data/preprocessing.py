"""The pictures that a model takes: their size, the alignment of the face, and the pixel values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD, standardize


@dataclass(frozen=True)
class Preprocessing:
    """How a face becomes the input of a model; it travels with the model's weights.

    A face is aligned to a square chip of `chip` pixels, of which the model takes the center square
    of `size` pixels, as (x / 255 - mean) / std for each color. The default is the training of the
    published models and of the recipes.

    Args:
        size: side of the input, pixels.
        chip: side of the aligned chip, pixels; at least `size`.
        alignment: name of an alignment of `aurel.vision.align`.
        mean, std: of red, green and blue, where 1 is white.

    Raises:
        ValueError: a size below 1, a chip smaller than the input, or a `std` that is not positive.
    """

    size: int = 224
    chip: int = 256
    alignment: str = "crop"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.chip:
            raise ValueError(f"size must be in 1..{self.chip} (chip), got {self.size}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} must have 3 numbers, got {getattr(self, name)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    def normalize(self, image: Tensor) -> Tensor:
        """Return uint8 images (..., 3, H, W) as float32 inputs of the model."""
        return standardize(image, self.mean, self.std)
