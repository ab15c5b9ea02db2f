"""Cut a face out of a picture, in the form that models take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.warp import square_to_picture, warp_square

MARGIN = 0.2
"""With this margin the distance of the eyes is about 0.3 of the crop, as in published data sets."""


def crop_face(image: RGBImage, face: Face, size: int, margin: float = MARGIN) -> RGBImage:
    """Return a square around a face, rotated upright and resized to `size`.

    The side of the square is the longer side of the face box plus `margin` of it on each side.
    Outside the picture, its border pixels are repeated.

    Args:
        image: (H, W, 3) uint8 RGB.
        face: box of the face, in pixels of `image`.
        size: side of the result, pixels.
        margin: margin on each side, as a fraction of the longer side of the box.

    Returns:
        The crop, (size, size, 3) uint8 RGB.

    Raises:
        ValueError: not an RGB picture, an empty box, or a box outside the picture.
    """
    return warp_square(image, box_to_picture(image, face, size, margin), size)


def box_to_picture(image: RGBImage, face: Face, size: int, margin: float) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from the crop of `crop_face` to the picture; see there."""
    check_rgb(image)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width = image.shape[:2]
    side = max(face.width, face.height) * (1 + 2 * margin)
    if not side > 0:
        raise ValueError(f"face must have a positive size, got {face}")
    x, y = face.center
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"face must lie in the {width} x {height} picture, got {face}")
    return square_to_picture((x, y), side, face.angle, size)
