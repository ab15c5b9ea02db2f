"""The height of the skin and its wrinkles, and the shading of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import Window, px
from aurel.data.synthetic.scene import Scene


@dataclass(frozen=True)
class Relief:
    """Height and openness of the skin, changed in place by the functions that add features.

    Args:
        height: in face coordinates toward the viewer, (n, S, S).
        openness: 1 on smooth skin, less in wrinkles, which are dark in any light, (n, S, S).
    """

    height: Array
    openness: Array

    def bump(self, window: Window, height: Array) -> None:
        """Add `height` to the skin in a window."""
        part = window.of(self.height)
        part += height

    def groove(self, window: Window, depth: Array, sink: float, darken: float) -> None:
        """Add wrinkles of depth 0..1 to the skin in a window."""
        part = window.of(self.openness)
        part -= darken * depth
        part = window.of(self.height)
        depth *= sink
        part -= depth


def head(scene: Scene) -> Relief:
    """Return the relief of the head without features."""
    height = np.sqrt(np.maximum(scene.dome, np.float32(0.004)))
    height *= 0.52
    return Relief(height, np.ones_like(height))


def shade(scene: Scene, relief: Relief) -> tuple[Array, Array]:
    """Return the light and the gloss of the relief, each (n, S, S)."""
    capture = scene.canvas.capture
    x, y = capture.light_x.astype(np.float64), capture.light_y.astype(np.float64)
    norm = np.sqrt(x * x + y * y + 1)
    slope_x, slope_y = _slopes(relief.height, scene.canvas.size)
    light = slope_x * px((-x / norm).astype(np.float32))
    light += slope_y * px((-y / norm).astype(np.float32))
    light += px((1 / norm).astype(np.float32))
    slope_x *= slope_x
    slope_y *= slope_y
    slope_x += slope_y
    slope_x += 1
    light /= np.sqrt(slope_x, out=slope_x)
    np.maximum(light, 0, out=light)
    gloss = light * light
    for _ in range(3):
        gloss *= gloss
    gloss *= px(0.045 + 0.045 * (1 - 0.72 * scene.person.skin_tone))
    ambient = px(capture.ambient)
    light *= (1.02 - ambient) * 1.15
    light += ambient
    light *= np.maximum(relief.openness, 0.18, out=relief.openness)
    return light, gloss


def _slopes(height: Array, size: int) -> tuple[Array, Array]:
    """Return the central differences along x and y, in units of face coordinates."""
    x, y = np.empty_like(height), np.empty_like(height)
    np.subtract(height[:, :, 2:], height[:, :, :-2], out=x[:, :, 1:-1])
    np.subtract(height[:, 2:], height[:, :-2], out=y[:, 1:-1])
    x[:, :, 0], x[:, :, -1] = x[:, :, 1], x[:, :, -2]
    y[:, 0], y[:, -1] = y[:, 1], y[:, -2]
    x *= size / 4
    y *= size / 4
    return x, y
