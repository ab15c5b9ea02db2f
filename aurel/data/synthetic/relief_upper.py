"""Forehead, brows, eyes, cheeks and nose, with the wrinkles of AUs 1, 2, 4, 6, 7, 9, 10 and 12."""

from __future__ import annotations

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import Window, clamp, px
from aurel.data.synthetic.relief import Relief
from aurel.data.synthetic.scene import SIDES, Scene


def add_forehead(scene: Scene, relief: Relief) -> None:
    """Add horizontal lines: in the middle for AU1, over the outer brows for AU2."""
    person, a, thin = scene.person, scene.a, scene.canvas.thin
    brow_y = person.eye_y - person.brow_rise
    window = scene.canvas.window(-0.56, 0.56, -1.06, brow_y + 0.08)
    relief.bump(window, 0.035 * window.blob(0.0, brow_y - 0.28, 0.50, 0.34))
    rows = np.minimum(brow_y - person.hairline, 0.50)
    relief.groove(window, _forehead_lines(scene, window, brow_y, rows), 0.020, 0.30)
    window = scene.canvas.window(-0.10, 0.10, person.eye_y - 0.11, person.eye_y - 0.03)
    root = window.line(0.0, person.eye_y - 0.050, 0.085, thin(0.015), 0.8)
    root += window.line(0.0, person.eye_y - 0.085, 0.085, thin(0.015), 0.8)
    relief.groove(window, root * px(a.mean(9) + 0.25 * a.mean(4)), 0.022, 0.27)


def add_brow(scene: Scene, relief: Relief) -> None:
    """Add the brow ridge, and AU4's oblique furrows and bulges at the inner ends of the brows."""
    person, shape, a, thin = scene.person, scene.shape, scene.a, scene.canvas.thin
    middle_y = shape.brow_inner_y.mean(1) - 0.015
    for side in SIDES:
        ridge_y = shape.brow_mid_y[:, side] - 0.01
        window = scene.canvas.window(0, 0.60, ridge_y - 0.11, ridge_y + 0.11, side)
        relief.bump(window, 0.045 * window.blob(0.30, ridge_y, 0.30, 0.11))
        x, y = shape.brow_inner_x[:, side] + 0.035, shape.brow_inner_y[:, side] - 0.015
        window = scene.canvas.window(x - 0.1, x + 0.1, y - 0.075, y + 0.075, side)
        relief.bump(window, window.blob(x, y, 0.10, 0.075) * px(0.034 * a[4][:, side]))
        window = scene.canvas.window(0.0, 0.10, middle_y - 0.105, middle_y + 0.105, side)
        furrow = window.upright(0.048, middle_y, 0.105, thin(0.017), slope=-0.22)
        furrow *= px(1.05 * a[4][:, side] + 0.10 * person.age)
        relief.groove(window, furrow, 0.026, 0.30)


def add_eyes(scene: Scene, relief: Relief) -> None:
    """Add sockets, eyeballs, pouch and furrow under the lid (AU6, AU7), and crow's feet (AU6)."""
    person, shape, a, thin = scene.person, scene.shape, scene.a, scene.canvas.thin
    for side in SIDES:
        x, y, width = person.eye_x, shape.eye_y[:, side], shape.eye_w[:, side]
        upper, lower = shape.lid_upper[:, side], shape.lid_lower[:, side]
        a6, a7 = a[6][:, side], a[7][:, side]
        window = scene.canvas.window(0.02, 0.72, y - 0.21, y + 0.215, side)
        socket = window.blob(x, y - 0.01, 1.75 * width, 0.16 + 0.25 * person.eye_h)
        bumps = socket * px(-0.055 * person.socket)
        bumps += 0.045 * window.blob(x, y + 0.2 * (lower - upper), 1.08 * width, 0.115)
        pouch = window.blob(x, y + lower + 0.030, 0.95 * width, 0.040)
        bumps += pouch * px(0.018 * a7 + 0.014 * a6)
        relief.bump(window, bumps)
        line_y = y + lower + 0.062 - 0.014 * a6 - 0.012 * a7
        line = window.line(x - 0.02, line_y, 1.02 * width, thin(0.016), -1.5)
        line *= px(
            0.22 * person.age + 0.85 * a6 + 0.50 * a7 + 0.30 * a[9][:, side] + 0.12 * a[12][:, side]
        )
        relief.groove(window, line, 0.018, 0.24)
        out = x + width + 0.067
        window = scene.canvas.window(out - 0.075, out + 0.075, y - 0.095, y + 0.095, side)
        feet = window.line(out, y - 0.029, 0.070, thin(0.012), slope=-0.42)
        feet += window.line(out, y + 0.006, 0.070, thin(0.012), slope=-0.02)
        feet += window.line(out, y + 0.042, 0.070, thin(0.012), slope=0.40)
        relief.groove(window, feet * px(0.95 * a6 + 0.10 * person.age), 0.018, 0.24)


def add_cheeks(scene: Scene, relief: Relief) -> None:
    """Add the cheeks, and the nasolabial furrows (AUs 9, 10 and 12) with their overhang."""
    shape, a = scene.shape, scene.a
    for side in SIDES:
        a12 = a[12][:, side]
        x, y = 0.38 + 0.03 * a12, shape.cheek_y[:, side]
        window = scene.canvas.window(x - 0.27, x + 0.27, y - 0.23, y + 0.23, side)
        pad = window.blob(x, y, 0.27, 0.23 - 0.02 * a[6][:, side])
        relief.bump(window, pad * px(0.070 * shape.cheek_height[:, side]))
        _add_nasolabial(scene, relief, side)


def add_nose(scene: Scene, relief: Relief) -> None:
    """Add bridge, tip, wings and nostrils of the nose, and AU9's oblique lines on its sides."""
    person, shape, a, thin = scene.person, scene.shape, scene.a, scene.canvas.thin
    y, width = shape.nose_y, shape.nose_w
    window = _turned(scene, scene.canvas.window(-0.30, 0.30, -0.36, 0.40))
    bumps = _bridge(scene, window)
    bumps += window.blob(0.0, y - 0.008, 0.7 * width, 0.085) * px(0.060 * person.nose_h)
    dark = 0.30 * window.line(0.0, y + 0.072, 0.9 * width, thin(0.020), -1.2)
    for side, sign in zip(SIDES, (-1.0, 1.0), strict=True):
        wing_y = shape.wing_y[:, side]
        wing = window.blob(sign * 0.74 * width, wing_y + 0.005, 0.42 * width, 0.070)
        bumps += wing * px(0.052 * person.nose_h)
        hole_h = 0.028 + 0.006 * a[10][:, side]
        dark += 0.80 * window.blob(sign * 0.40 * width, wing_y + 0.044, 0.34 * width, hole_h)
        crease = window.upright(
            sign * 1.10 * width, wing_y + 0.008, 0.062, thin(0.015), -3.0 * sign
        )
        dark += crease * px(0.42 + 0.3 * a[9][:, side] + 0.2 * a[10][:, side])
    relief.bump(window, bumps)
    relief.groove(window, np.minimum(dark, 1.25, out=dark), 0.0, 0.55)
    for side in SIDES:
        a9 = a[9][:, side]
        window = scene.canvas.window(0.02, 0.17, -0.09, 0.14, side)
        lines = window.line(0.095, 0.020 - 0.03 * a9, 0.065, thin(0.013), slope=0.55)
        lines += window.line(0.095, 0.065 - 0.03 * a9, 0.065, thin(0.013), slope=0.55)
        relief.groove(window, lines * px(a9), 0.018, 0.24)


def _forehead_lines(scene: Scene, window: Window, brow_y: Array, rows: Array) -> Array:
    person, a = scene.person, scene.a
    u, v = window.u, window.v
    is_left = u < 0
    lateral = np.where(is_left, px(a[2][:, 0]), px(a[2][:, 1]))
    middle_strength = 1 - 16 * u * u
    np.maximum(middle_strength, 0, out=middle_strength)
    middle_strength *= px(0.9 * a.mean(1) + 0.10 * person.age)
    middle_y = v - px(brow_y - 0.035 * a.mean(1)) - 0.35 * u * u
    out = (np.abs(u) - 0.34) * 5
    out *= out
    lateral_strength = np.maximum(1 - out, 0)
    lateral_strength *= 0.95 * lateral + px(0.06 * person.age)
    lateral_y = v - px(brow_y) + 0.045 * lateral - 0.036 * out
    inverse = 1 / scene.canvas.thin(0.016)
    lines = np.zeros_like(u)
    for share, strength in ((0.40, 1.0), (0.60, 0.9), (0.80, 0.6)):
        for profile, y in ((middle_strength, middle_y), (lateral_strength, lateral_y)):
            line = y + px(share * rows)
            line *= inverse
            line *= line
            np.subtract(1, line, out=line)
            np.maximum(line, 0, out=line)
            line *= line
            line *= profile
            line *= strength
            lines += line
    return lines


def _add_nasolabial(scene: Scene, relief: Relief, side: int) -> None:
    shape = scene.shape
    a12 = scene.a[12][:, side]
    width = scene.canvas.thin(0.026)
    top = shape.wing_y[:, side] - 0.015
    bottom = shape.mouth_y + 0.4 * shape.corner_dy[:, side] + 0.035
    start, end = 0.95 * shape.nose_w + 0.035, shape.mouth_w[:, side] + 0.075 + 0.02 * a12
    window = scene.canvas.window(
        np.minimum(start, end) - width, np.maximum(start, end) + 0.06 + 3.5 * width, top, bottom,
        side,
    )  # fmt: skip
    along = (window.v - px((top + bottom) / 2)) * px(2 / (bottom - top))
    square = along * along
    across = window.u - px((start + end) / 2) - px((end - start) / 2) * along
    across -= px(0.035 + 0.02 * a12) * (1 - square)
    across *= 1 / width
    depth = np.maximum(1 - square * square, 0)
    depth *= np.maximum(1 - px(0.375 * shape.furrow_upper[:, side]) * (along + 1), 0)
    depth *= px(shape.furrow[:, side])
    overhang = (across - 1.6) * 0.55
    overhang *= overhang
    overhang = np.maximum(1 - overhang, 0)
    overhang *= overhang
    across *= across
    groove = np.maximum(1 - across, 0)
    groove *= groove
    relief.bump(window, 0.022 * overhang * depth)
    relief.groove(window, groove * depth, 0.020, 0.30)


def _bridge(scene: Scene, window: Window) -> Array:
    """Return the ridge from between the eyes to the tip, narrow above and wide below."""
    person, shape = scene.person, scene.shape
    root, length = person.eye_y - 0.06, shape.nose_y - person.eye_y + 0.06
    down = clamp((window.v - px(root)) * px(1 / length))
    profile = window.u / (px(person.nose_bridge) * (1 - down) + px(0.8 * shape.nose_w) * down)
    profile *= profile
    ridge = np.maximum(1 - 0.55 * profile, 0)
    ridge *= ridge
    ridge *= 0.25 + 0.75 * down * down
    ridge *= clamp((px(shape.nose_y + 0.065) - window.v) * 12)
    ridge *= clamp((window.v - px(person.eye_y - 0.14)) * 7)
    ridge *= px(0.120 * person.nose_h)
    return ridge


def _turned(scene: Scene, window: Window) -> Window:
    """Return a window shifted sideways with the yaw of the head, more toward the tip."""
    lower = clamp((window.v - px(scene.person.eye_y)) * 2.2)
    return Window(window.u - px(scene.shape.nose_x) * lower, window.v, window.rows, window.columns)
