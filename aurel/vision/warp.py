"""Cut a square out of a picture without aliasing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aurel.vision.image import RGBImage
from aurel.vision.opencv import cv2


def warp_square(
    image: RGBImage,
    to_picture: NDArray[np.float64],
    size: int,
    *,
    repeat_border: bool = True,
) -> RGBImage:
    """Return the square of `size` pixels whose points are moved into the picture by a matrix.

    Args:
        image: (H, W, 3) uint8 RGB.
        to_picture: (2, 3), moves a point (x, y, 1) of the square to the picture; integers are the
            edges of pixels in both.
        size: side of the result, pixels.
        repeat_border: outside the picture, repeat its border pixels; otherwise black.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    matrix, shift = to_picture[:, :2], to_picture[:, 2]
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]]) @ matrix.T + shift
    side = size * float(np.linalg.norm(matrix, ord=2))
    # Two pixels more, of the picture or of the averaged one, for the interpolation at the edge.
    reach = 2 + 2 * side / size
    limits = np.array(image.shape[1::-1])
    first = np.clip(np.floor(corners.min(0) - reach), 0, limits - 1).astype(int)
    last = np.clip(np.ceil(corners.max(0) + reach), first + 1, limits).astype(int)
    region = image[first[1] : last[1], first[0] : last[0]]

    # A warp interpolates between four pixels only: shrink a large square by averaging first.
    scale = np.ones(2)
    if side > 2 * size:
        small = np.maximum(np.round(np.array(region.shape[1::-1]) * size / side), 1).astype(int)
        scale = small / region.shape[1::-1]
        region = cv2.resize(region, tuple(small.tolist()), interpolation=cv2.INTER_AREA)

    # Integers are pixel centers in OpenCV: shift by one half.
    matrix = scale[:, None] * matrix
    shift = scale * (shift - first) + matrix @ (0.5, 0.5) - 0.5
    return cv2.warpAffine(
        np.ascontiguousarray(region),
        np.column_stack((matrix, shift)),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if repeat_border else cv2.BORDER_CONSTANT,
    )


def square_to_picture(
    center: tuple[float, float], side: float, angle: float, size: int
) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from a square of `size` pixels to its place in a picture.

    Args:
        center: center of the place, (x, y).
        side: side of the place, pixels of the picture.
        angle: its rotation in degrees, clockwise in the picture.
        size: side of the square, pixels.
    """
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * side / size
    return np.column_stack((matrix, np.array(center) - matrix @ np.full(2, size / 2)))


def move(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (..., 2) moved by a matrix (2, 3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (2, 3) of the opposite move."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack((back, -back @ matrix[:, 2]))
