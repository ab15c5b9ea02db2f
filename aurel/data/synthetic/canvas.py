"""A batch of pictures in face coordinates, and the shapes that the pictures are drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.capture import Capture, face_to_image, image_to_face

Number = Array | float


@overload
def px(value: Array) -> Array: ...
@overload
def px(value: float) -> float: ...
def px(value: Number) -> Number:
    """Return a number per image, (n,), in the shape (n, 1, 1) of pixels; a float unchanged."""
    return value[:, None, None] if isinstance(value, np.ndarray) else value


def clamp(x: Array) -> Array:
    """Limit an array to 0..1, in place."""
    np.maximum(x, 0, out=x)
    return np.minimum(x, 1, out=x)


def blend(picture: Array, weight: Array, color: Array) -> None:
    """Blend a color, (n, 3) or (n, 3, h, w), into (n, 3, h, w) with weight (n, h, w)."""
    if color.ndim == 2:
        color = color[:, :, None, None]
    picture += weight[:, None] * (color - picture)


@dataclass(frozen=True)
class Window:
    """The rectangle of pixels that contains a feature in every image of the batch.

    Args:
        u, v: face coordinates, (n, h, w). On a side, u increases outward from the middle.
        rows, columns: rows and columns of the window in the picture.
    """

    u: Array
    v: Array
    rows: slice
    columns: slice

    def of(self, picture: Array) -> Array:
        """Return a view of the window in a picture (..., H, W)."""
        return picture[..., self.rows, self.columns]

    def blob(self, x: Number, y: Number, radius_x: Number, radius_y: Number) -> Array:
        """Return a smooth elliptic bump of height 1, zero outside its radii."""
        a = (self.u - px(x)) * px(1 / radius_x)
        b = (self.v - px(y)) * px(1 / radius_y)
        a *= a
        b *= b
        a += b
        np.subtract(1, a, out=a)
        np.maximum(a, 0, out=a)
        a *= a
        return a

    def line(
        self,
        x: Number,
        y: Number,
        length: Number,
        width: Number,
        bend: Number = 0.0,
        slope: Number = 0.0,
    ) -> Array:
        """Return a smooth stroke y = slope dx + bend dx^2 of half `length` and half `width`."""
        return _stroke(self.u - px(x), self.v - px(y), length, width, bend, slope)

    def upright(
        self,
        x: Number,
        y: Number,
        length: Number,
        width: Number,
        bend: Number = 0.0,
        slope: Number = 0.0,
    ) -> Array:
        """Return a smooth stroke x = slope dy + bend dy^2 of half `length` and half `width`."""
        return _stroke(self.v - px(y), self.u - px(x), length, width, bend, slope)


@dataclass(frozen=True)
class Canvas:
    """A batch of pictures: face coordinates of their pixels, (n, size, size)."""

    size: int
    u: Array
    v: Array
    capture: Capture

    @property
    def pixel(self) -> float:
        """Width of a pixel in face coordinates."""
        return 2 / self.size

    def edge(self, distance: Array, softness: float = 1.0) -> Array:
        """Return the covered share of each pixel for a signed distance, which is changed."""
        distance *= 1 / (self.pixel * softness)
        distance += 0.5
        return clamp(distance)

    def thin(self, width: float) -> float:
        """Return `width`, but at least that of a pixel, so that thin strokes do not disappear."""
        return max(width, 1.15 * self.pixel)

    def window(
        self, x0: Number, x1: Number, y0: Number, y1: Number, side: int | None = None
    ) -> Window:
        """Return the window that contains a box of face coordinates in all images.

        Args:
            x0, x1, y0, y1: the box, floats or (n,); x increases outward where there is a side.
            side: 0 image left, 1 image right, None for the middle of the face.
        """
        count = len(self.u)
        low, high = (-x1, -x0) if side == 0 else (x0, x1)
        corners = np.empty((count, 4, 2))
        corners[:, 0::2, 0] = np.reshape(low, (-1, 1))
        corners[:, 1::2, 0] = np.reshape(high, (-1, 1))
        corners[:, :2, 1] = np.reshape(y0, (-1, 1))
        corners[:, 2:, 1] = np.reshape(y1, (-1, 1))
        pixels = (face_to_image(corners, self.capture) + 1) * (self.size / 2) - 0.5
        first = np.clip(np.floor(pixels.min((0, 1))).astype(int) - 1, 0, self.size)
        last = np.clip(np.ceil(pixels.max((0, 1))).astype(int) + 2, first, self.size)
        rows, columns = slice(first[1], last[1]), slice(first[0], last[0])
        u = self.u[:, rows, columns]
        return Window(-u if side == 0 else u, self.v[:, rows, columns], rows, columns)


def make_canvas(size: int, capture: Capture) -> Canvas:
    """Return the canvas of square pictures of `size` pixels a side."""
    middle = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    u, v = image_to_face(middle[None, None, :], middle[None, :, None], capture)
    return Canvas(size, u, v, capture)


def _stroke(
    along: Array, across: Array, length: Number, width: Number, bend: Number, slope: Number
) -> Array:
    if isinstance(bend, np.ndarray) or bend != 0:
        across -= along * (px(slope) + px(bend) * along)
    elif isinstance(slope, np.ndarray) or slope != 0:
        across -= along * px(slope)
    across *= px(1 / width)
    across *= across
    np.subtract(1, across, out=across)
    np.maximum(across, 0, out=across)
    across *= across
    along *= px(1 / length)
    along *= along
    np.subtract(1, along, out=along)
    np.maximum(along, 0, out=along)
    across *= along
    return across
