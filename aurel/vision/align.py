"""Align faces: move their points to the template of the data that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aurel.vision.crop import MARGIN, box_to_picture
from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.warp import inverse, square_to_picture, warp_square

EYES_FIRST = (16.0, 16.0, 1.0, 1.0, 1.0)
"""Weights of the points that keep the eyes level and at one distance, also if the head is turned;
the other points limit the scale of a profile, whose eyes are close to each other."""

EQUAL = (1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Alignment:
    """Where the points of a face lie in its chip.

    Args:
        name: its name in a `Preprocessing`.
        points: (5, 2) the template, as fractions of the side of the chip, in the order of
            `POINT_NAMES`.
        weights: (5,) weight of each point in the least squares.
        square: if given, the template is ignored: the eyes are level, and the chip is the square
            around the center of the box of the points, `square` times its longer side.
        stretch: if given, points are ignored: the chip is the box of the face, `stretch` times as
            large and resized to a square.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    weights: tuple[float, ...] = EYES_FIRST
    square: float | None = None
    stretch: float | None = None


@dataclass(frozen=True)
class Chip:
    """An aligned face.

    Args:
        image: (S, S, 3) uint8 RGB.
        matrix: (2, 3), moves a point (x, y, 1) of the picture into the chip; integers are the edges
            of pixels in both, so the center of the first pixel is (0.5, 0.5).
    """

    image: RGBImage
    matrix: NDArray[np.float64]


ALIGNMENTS: Mapping[str, Alignment] = MappingProxyType(
    {
        alignment.name: alignment
        for alignment in (
            # The mean of the points in crops around the boxes of the Haar detector with MARGIN.
            Alignment(
                "crop",
                ((0.362, 0.42), (0.638, 0.42), (0.5, 0.57), (0.385, 0.696), (0.615, 0.696)),
            ),
            # The chips of BP4D and DISFA in JAA-Net and SACL: dataset/face_transform.py of
            # PyTorch-JAANet; the template is that of a frontal face.
            Alignment(
                "jaanet",
                ((0.333, 0.328), (0.667, 0.328), (0.5, 0.52), (0.36, 0.672), (0.64, 0.672)),
                square=2.9,
            ),
            # The chips of MACG: the mean shape and the padding of 0.37 of its MTCNN tool.
            Alignment(
                "mtcnn",
                (
                    (0.34147, 0.33445),
                    (0.64718, 0.33445),
                    (0.49433, 0.57363),
                    (0.35871, 0.66105),
                    (0.62995, 0.66105),
                ),
                EQUAL,
            ),
            # The box of a detector, of any tilt, without regard to its shape.
            Alignment("box", (), stretch=1.0),
            Alignment("wide_box", (), stretch=1.2),
        )
    }
)
"""The alignments by name."""


def find_alignment(name: str) -> Alignment:
    """Return the alignment of that name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ALIGNMENTS:
        raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}, got {name!r}")
    return ALIGNMENTS[name]


def align_face(
    image: RGBImage,
    face: Face,
    alignment: Alignment | str = "crop",
    size: int = 224,
    *,
    chip: int | None = None,
    margin: float | None = None,
) -> Chip:
    """Return a face with its points at the template, as the center of an aligned chip.

    A face with fewer than two points is cut out along its box, as by `crop_face`: the square of the
    box and of `margin` on each side.

    Args:
        image: (H, W, 3) uint8 RGB.
        face: box and points of the face, in pixels of `image`.
        alignment: the template, or its name.
        size: side S of the result, pixels.
        chip: side of the aligned chip, of which the result is the center square; None for `size`.
        margin: of the result for a face without points; None for the part of a chip with `MARGIN`.

    Raises:
        ValueError: not an RGB picture, a size below 1, an empty box or one outside the picture, or
            an unknown alignment.
    """
    check_rgb(image)
    chip = size if chip is None else chip
    for name, side in (("size", size), ("chip", chip)):
        if side < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {side}")
    if isinstance(alignment, str):
        alignment = find_alignment(alignment)
    if margin is None:
        margin = ((1 + 2 * MARGIN) * size / chip - 1) / 2
    to_picture = box_to_picture(image, face, size, margin)
    points = _usable(face)
    if alignment.stretch is not None:
        to_picture = _stretched(face, alignment.stretch * size / chip, size)
    elif points is not None:
        to_picture = inverse(chip_matrix(points, alignment, chip))
        to_picture[:, 2] += to_picture[:, :2] @ np.full(2, (chip - size) / 2)
    return Chip(warp_square(image, to_picture, size), inverse(to_picture))


def chip_matrix(points: ArrayLike, alignment: Alignment, size: int) -> NDArray[np.float64]:
    """Return the matrix (2, 3) that moves five points to their place in a chip of `size` pixels.

    Args:
        points: (5, 2) in the order of `POINT_NAMES`; points with NaN are left out.
        alignment: the place.
        size: side of the chip, pixels.

    Raises:
        ValueError: fewer than two different points.
    """
    points = np.asarray(points, dtype=float)
    if alignment.square is not None and np.isfinite(points).all():
        return _square_matrix(points, alignment.square, size)
    return similarity(points, size * np.array(alignment.points), alignment.weights)


def similarity(
    points: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Return the rotation, scale and shift that moves points to a target, by least squares.

    .. math::
        w \approx a z + b, \qquad
        a = \frac{\sum_k s_k \overline{(z_k - \bar z)} (w_k - \bar w)}
            {\sum_k s_k |z_k - \bar z|^2}, \qquad b = \bar w - a \bar z

    with points z and targets w as complex numbers, weights s that sum to 1, and the weighted means.

    Args:
        points: (P, 2); points with NaN are left out.
        target: (P, 2).
        weights: (P,), None for equal weights.

    Returns:
        The matrix (2, 3), float64; it contains no reflection.

    Raises:
        ValueError: fewer than two different points.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", TPAMI 1991, in two dimensions.
    """
    z, w = (np.asarray(place, dtype=float) @ (1, 1j) for place in (points, target))
    share = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=float)
    known = np.isfinite(z)
    z, w, share = z[known], w[known], share[known] / max(share[known].sum(), 1e-12)
    z_mean, w_mean = share @ z, share @ w
    spread = float(share @ np.abs(z - z_mean) ** 2)
    if not spread > 1e-12 * max(1.0, abs(z_mean)) ** 2:
        given = np.asarray(points).tolist()
        raise ValueError(f"points must have at least two different ones, got {given}")
    a = (share * (z - z_mean).conj()) @ (w - w_mean) / spread
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _square_matrix(points: NDArray[np.float64], times: float, size: int) -> NDArray[np.float64]:
    along = points[1] - points[0]
    length = np.hypot(*along)
    if not length > 0:
        raise ValueError(f"points must have two different eyes, got {points.tolist()}")
    cos, sin = along / length
    level = np.array([[cos, sin], [-sin, cos]])
    turned = points @ level.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = size / (times * (high - low).max())
    return np.column_stack((scale * level, size / 2 - scale * (low + high) / 2))


def _stretched(face: Face, times: float, size: int) -> NDArray[np.float64]:
    """Return the matrix (2, 3) from a square of `size` pixels to an enlarged box of a face."""
    upright = square_to_picture(face.center, size, face.angle, size)
    matrix = upright[:, :2] * (times * np.array([face.width, face.height]) / size)
    return np.column_stack((matrix, np.array(face.center) - matrix @ np.full(2, size / 2)))


def _usable(face: Face) -> NDArray[np.float64] | None:
    """Return the points of a face if a similarity can be fitted to them."""
    if face.points is None or len(face.points) != 5:
        return None
    points = np.array(face.points, dtype=float)
    known = points[np.isfinite(points).all(axis=1)]
    if len(known) < 2 or not np.ptp(known, axis=0).max() > 1e-6:
        return None
    return points
