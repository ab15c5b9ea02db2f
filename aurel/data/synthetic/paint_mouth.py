"""Lips, and the inside of the open mouth."""

from __future__ import annotations

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import Window, blend, clamp, px
from aurel.data.synthetic.curves import LipLines, corner_line, lip_lines
from aurel.data.synthetic.scene import Scene

CAVITY = np.array((0.17, 0.055, 0.055), np.float32)
TONGUE = np.array([(0.52, 0.22, 0.22)], np.float32)
TOOTH = np.array((0.90, 0.87, 0.81), np.float32)


def paint_mouth(scene: Scene, picture: Array, color: Array, light: Array) -> None:
    """Paint the lips, the opening with teeth and tongue, and the seam of closed lips."""
    canvas, shape, a = scene.canvas, scene.shape, scene.a
    window = canvas.window(
        -shape.mouth_w[:, 0] - 0.05, shape.mouth_w[:, 1] + 0.05,
        shape.mouth_y - 0.22, shape.mouth_y + shape.gap_lower + 0.20,
    )  # fmt: skip
    is_right = window.u > 0
    width = np.where(is_right, px(shape.mouth_w[:, 1]), px(shape.mouth_w[:, 0]))
    corner = np.where(is_right, px(shape.corner_dy[:, 1]), px(shape.corner_dy[:, 0]))
    x = window.u / width
    square = x * x
    y = window.v - px(shape.mouth_y) - corner_line(corner, x)
    lines = lip_lines(
        x, px(shape.lip_upper), px(shape.lip_lower), px(shape.gap_upper), px(shape.gap_lower),
        px(shape.lip_raise),
    )  # fmt: skip
    ends = clamp((1 - square) * px(shape.mouth_w.mean(1) * np.float32(0.5 / canvas.pixel)) + 0.35)
    part = window.of(picture)
    _paint_lips(scene, window, part, color, light, y, lines, ends)
    opening = np.minimum(
        canvas.edge(y - lines.inner_upper), canvas.edge(lines.inner_lower - y)
    ) * ends  # fmt: skip
    gap = shape.gap_upper + shape.gap_lower
    opening *= px(np.minimum(gap * np.float32(0.8 / canvas.pixel), 1))
    blend(part, opening, _inside(scene, y, square, lines))
    seam = (y - (lines.inner_upper + lines.inner_lower) * 0.5) / px(
        np.maximum(0.009 + 0.006 * a.mean(24), canvas.thin(0.009)).astype(np.float32)
    )
    seam = np.maximum(1 - seam * seam, 0) * clamp((1 - square) * 2.5)
    seam *= px(0.46 + 0.25 * a.mean(24)) * (1 - 0.9 * opening)
    part *= (1 - seam)[:, None]


def _paint_lips(
    scene: Scene,
    window: Window,
    part: Array,
    color: Array,
    light: Array,
    y: Array,
    lines: LipLines,
    ends: Array,
) -> None:
    """Paint the lips: the upper one, which faces down, is darker than the lower one."""
    edge = scene.canvas.edge
    lips = np.minimum(edge(y - lines.outer_upper, 1.6), edge(lines.outer_lower - y, 1.6)) * ends
    upper_h = np.maximum(lines.inner_upper - lines.outer_upper, np.float32(1e-3))
    lower_h = np.maximum(lines.outer_lower - lines.inner_lower, np.float32(1e-3))
    down_upper = clamp((y - lines.outer_upper) / upper_h)
    down_lower = clamp((y - lines.inner_lower) / lower_h)
    is_lower = edge(y - (lines.inner_upper + lines.inner_lower) * 0.5)
    tone = 0.97 - 0.20 * down_upper
    tone_lower = 1.0 + 0.44 * down_lower * (1 - down_lower) - 0.18 * down_lower * down_lower
    tone += is_lower * (tone_lower - tone)
    tone *= 0.50 + 0.50 * window.of(light)
    tone *= 1 + 0.06 * window.of(scene.texture)
    blend(part, lips * 0.92, color[:, :, None, None] * tone[:, None])


def _inside(scene: Scene, y: Array, square: Array, lines: LipLines) -> Array:
    """Return the colors of the open mouth: dark, a tongue when the jaw drops, upper teeth."""
    a = scene.a
    inside = np.broadcast_to(CAVITY[None, :, None, None], (len(y), 3, *y.shape[1:])).copy()
    tongue = clamp((y - lines.inner_lower + 0.055) * 16) * np.maximum(1 - 2.2 * square, 0)
    blend(inside, tongue * px(np.minimum(1.2 * a.mean(26), 1)), TONGUE)
    tall = np.minimum(
        px(0.040 + 0.012 * a.mean(12) + 0.02 * a.mean(10)),
        (lines.inner_lower - lines.inner_upper) * 0.62,
    )
    shown = 0.35 + 0.5 * a.mean(12) + 0.4 * a.mean(10) + 0.25 * a.mean(25) + 0.4 * a.mean(20)
    shown = np.clip(shown - 0.25 * a.mean(26), 0, 1)
    teeth = scene.canvas.edge(lines.inner_upper + tall - y)
    teeth *= np.maximum(1 - 1.35 * square, 0) * px(shown)
    lit = np.maximum(1 - 0.7 * square, 0) * clamp(0.72 + (y - lines.inner_upper) * 9)
    blend(inside, teeth, TOOTH[None, :, None, None] * lit[:, None])
    return inside
