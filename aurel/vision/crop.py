"""Cutting a face out of a picture, as the models want it."""

from __future__ import annotations

import numpy as np

from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2

MARGIN = 0.2
"""Puts the eyes about 0.3 of the crop apart, as in the face chips of the published data sets."""


def crop_face(image: RGBImage, face: Face, size: int, margin: float = MARGIN) -> RGBImage:
    """Cut a square around a face, turned upright, resized to `size`.

    The square's side is the longer side of the face's box, widened by `margin` of it on each side.
    Where the square leaves the picture, the picture's border pixels are repeated.

    Args:
        image: (H, W, 3) uint8 RGB.
        face: where the face is, in pixels of `image`.
        size: side of the result, pixels.
        margin: how much to add on each side, as a part of the box's longer side.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ValueError: not an RGB picture, an empty box, or a box outside the picture.
    """
    check_rgb(image)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width = image.shape[:2]
    side = max(face.width, face.height) * (1 + 2 * margin)
    if not side > 0:
        raise ValueError(f"face must have a positive size, got {face}")
    centre = np.array(face.centre)
    if not (0 <= centre[0] <= width and 0 <= centre[1] <= height):
        raise ValueError(f"face must lie in the {width} x {height} picture, got {face}")

    # A warp reads four pixels for one, so a large face is first shrunk by averaging.
    reach = side * 0.75 + 2
    left, top = np.maximum(np.floor(centre - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(centre + reach), (width, height)).astype(int)
    region = image[top:bottom, left:right]
    centre -= (left, top)
    scale = np.ones(2)
    if side > 2 * size:
        small = np.maximum(np.round(np.array(region.shape[1::-1]) * size / side), 1).astype(int)
        scale = small / region.shape[1::-1]
        region = cv2.resize(region, tuple(small.tolist()), interpolation=cv2.INTER_AREA)

    # OpenCV puts pixel centres at whole numbers, boxes put pixel edges there: hence the halves.
    turn = np.deg2rad(face.angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix *= scale[:, None] * side / size
    shift = scale * centre - 0.5 - matrix @ np.full(2, (size - 1) / 2)
    return cv2.warpAffine(
        region,
        np.column_stack((matrix, shift)),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
