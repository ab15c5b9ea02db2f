"""Cut a face out of a picture, in the form that models take."""

from __future__ import annotations

import numpy as np

from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2

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
    check_rgb(image)
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width = image.shape[:2]
    side = max(face.width, face.height) * (1 + 2 * margin)
    if not side > 0:
        raise ValueError(f"face must have a positive size, got {face}")
    center = np.array(face.center)
    if not (0 <= center[0] <= width and 0 <= center[1] <= height):
        raise ValueError(f"face must lie in the {width} x {height} picture, got {face}")

    # A warp interpolates between four pixels only: shrink a large face by averaging first.
    reach = side * 0.75 + 2
    left, top = np.maximum(np.floor(center - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(center + reach), (width, height)).astype(int)
    region = image[top:bottom, left:right]
    center -= (left, top)
    scale = np.ones(2)
    if side > 2 * size:
        small = np.maximum(np.round(np.array(region.shape[1::-1]) * size / side), 1).astype(int)
        scale = small / region.shape[1::-1]
        region = cv2.resize(region, tuple(small.tolist()), interpolation=cv2.INTER_AREA)

    # Integers are pixel centers in OpenCV and pixel edges in boxes: shift by one half.
    turn = np.deg2rad(face.angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix *= scale[:, None] * side / size
    shift = scale * center - 0.5 - matrix @ np.full(2, (size - 1) / 2)
    return cv2.warpAffine(
        region,
        np.column_stack((matrix, shift)),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
