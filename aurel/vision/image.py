"""The type of pictures in this package: 8-bit RGB, rows first."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RGBImage: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8 in the order red, green, blue; OpenCV's order is blue, green, red."""


def check_rgb(image: Any, name: str = "image") -> None:
    """Raise unless `image` is an (H, W, 3) uint8 array with at least one pixel.

    Raises:
        ValueError: another shape or type.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{name} must be a numpy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"{name} must be (H, W, 3) uint8 in RGB order, got {image.shape} {image.dtype}"
        )
