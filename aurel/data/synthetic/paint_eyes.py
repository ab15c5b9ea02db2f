"""Eyes with lids, iris and gaze; brows."""

from __future__ import annotations

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import blend, clamp, px
from aurel.data.synthetic.curves import brow_line, lower_lid, upper_lid
from aurel.data.synthetic.scene import SIDES, Scene
from aurel.data.synthetic.texture import look_up

SCLERA = np.array([(0.92, 0.89, 0.87)], np.float32)
PUPIL = np.array([(0.03, 0.03, 0.03)], np.float32)
GLINT = np.array([(0.96, 0.96, 0.96)], np.float32)


def paint_eyes(scene: Scene, picture: Array, iris: Array, light: Array) -> None:
    """Paint both eyes between their lids, then lash lines and the crease of the lid."""
    canvas, person, shape, a = scene.canvas, scene.person, scene.shape, scene.a
    for side in SIDES:
        y, width = shape.eye_y[:, side], shape.eye_w[:, side]
        x = person.eye_x
        window = canvas.window(x - width - 0.03, x + width + 0.03, y - 0.235, y + 0.14, side)
        dx = window.u - px(x)
        dy = window.v - px(y) + px(person.eye_tilt) * dx
        along = dx * px(1 / width)
        upper = upper_lid(px(shape.lid_upper[:, side]), along)
        lower = lower_lid(px(shape.lid_lower[:, side]), px(shape.lid_flat[:, side]), along)
        ends = clamp((1 - along * along) * px(width * np.float32(0.5 / canvas.pixel)) + 0.3)
        opening = np.minimum(canvas.edge(dy - upper), canvas.edge(lower - dy))
        opening *= ends
        part = window.of(picture)
        under_lid = clamp(0.62 + (dy - upper) * 7)
        _paint_eyeball(scene, side, part, opening, under_lid, dx, dy, window.of(light), iris)
        lashes = _band(dy - upper + 0.004, canvas.thin(0.0125)) * ends
        rim = _band(dy - lower - 0.003, canvas.thin(0.009)) * ends
        part *= ((1 - 0.80 * lashes) * (1 - 0.28 * rim))[:, None]
        fold = np.maximum(shape.lid_upper[:, side], 0.02)
        fold = fold + person.lid_crease * (1 - 0.55 * a[4][:, side])
        crease_y = -px(fold) * (0.35 + 0.65 * np.maximum(1 - 0.72 * along * along, 0))
        crease = _band(dy - crease_y, canvas.thin(0.0105))
        crease *= clamp((1.12 - np.abs(along)) * 4)
        crease *= px((0.30 + 0.12 * person.age) * (1 - 0.4 * a[5][:, side]))
        part *= (1 - crease)[:, None]


def paint_brows(scene: Scene, picture: Array, hair: Array, light: Array) -> None:
    """Paint the brows along the curve that the landmarks lie on."""
    canvas, person, shape = scene.canvas, scene.person, scene.shape
    for side in SIDES:
        inner, middle = shape.brow_inner_y[:, side], shape.brow_mid_y[:, side]
        outer = shape.brow_outer_y[:, side]
        start, end = shape.brow_inner_x[:, side], shape.brow_outer_x[:, side]
        top = np.minimum(np.minimum(inner, middle), outer) - 0.07
        bottom = np.maximum(np.maximum(inner, middle), outer) + 0.07
        window = canvas.window(start - 0.05, end + 0.05, top, bottom, side)
        t = (window.u - px(start)) * px(1 / (end - start))
        strands = look_up(window.v * 60 - window.u * 38 + 512, window.u * 170 + 512)
        thick = px(person.brow_thick) * (1 - 0.62 * t * t) * (1 + 0.25 * strands)
        away = np.abs(window.v - brow_line(px(inner), px(middle), px(outer), t))
        brow = clamp((thick - away) * (0.8 / max(canvas.pixel, 1 / 45)) + 0.5)
        brow *= clamp((t + 0.06) * 9) * clamp((1.04 - t) * 7)
        brow *= px(person.brow_dark) * (0.88 + 0.22 * strands)
        shaded = (hair * np.float32(0.75))[:, :, None, None] * window.of(light)[:, None]
        blend(window.of(picture), clamp(brow), shaded)


def _paint_eyeball(
    scene: Scene,
    side: int,
    part: Array,
    opening: Array,
    under_lid: Array,
    dx: Array,
    dy: Array,
    light: Array,
    iris: Array,
) -> None:
    canvas, person, capture = scene.canvas, scene.person, scene.canvas.capture
    width = scene.shape.eye_w[:, side]
    outward = np.float32(1 if side else -1)
    across = dx * px(1 / width)
    lit = under_lid * (0.95 - 0.22 * across * across) * (0.55 + 0.45 * np.minimum(light, 1.1))
    blend(part, opening, SCLERA[:, :, None, None] * lit[:, None])
    gx = dx - px(outward * 0.45 * capture.gaze_x * width)
    gy = dy - px(0.035 * capture.gaze_y - 0.006)
    radius = np.sqrt(gx * gx + gy * gy)
    size = px(person.iris_r)
    ring = 0.55 + 0.45 * clamp((0.93 * size - radius) * px(1 / (0.30 * person.iris_r)))
    colored = iris[:, :, None, None] * (1.25 * ring * under_lid)[:, None]
    blend(part, canvas.edge(size - radius) * opening, colored)
    blend(part, canvas.edge(0.45 * size - radius) * opening, PUPIL)
    gx -= px(outward * 0.022 * np.sign(capture.light_x))
    gy += 0.024
    glint = canvas.edge((0.013**2 - gx * gx - gy * gy) * (1 / 0.026))
    blend(part, glint * opening, GLINT)


def _band(distance: Array, half_width: float) -> Array:
    distance *= 1 / half_width
    distance *= distance
    return np.maximum(1 - distance, 0)
