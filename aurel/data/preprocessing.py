"""The pictures that a model takes: their size, the alignment of the face, and the pixel values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        chip: side of the aligned chip, pixels.
        alignment: name of an alignment of `aurel.vision.align`.
        mean, std: of red, green and blue, where 1 is white.

    Raises:
        ValueError: a side below 1, not three numbers, or a `std` that is not positive.
    """

    size: int = 224
    chip: int = 256
    alignment: str = "crop"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("size", "chip"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 pixel, got {getattr(self, name)}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} must have 3 numbers, got {getattr(self, name)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing with these values, as read from a file.

        Without `chip`, it is 256 / 224 of the size, as published, or the size for a box.

        Args:
            values: `size`, and others of the fields; lists for `mean` and `std`.

        Raises:
            ValueError: an unknown field, or a bad value.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"preprocessing must have the fields {known}, got {unknown[0]!r}")
        size = int(values.get("size", cls.size))
        is_box = "box" in str(values.get("alignment", cls.alignment))
        found = {"chip": size if is_box else size * 256 // 224, **values, "size": size}
        for name in ("mean", "std"):
            if name in found:
                found[name] = tuple(found[name])
        return cls(**found)

    def normalize(self, image: Tensor) -> Tensor:
        """Return uint8 images (..., 3, H, W) as float32 inputs of the model."""
        return standardize(image, self.mean, self.std)
