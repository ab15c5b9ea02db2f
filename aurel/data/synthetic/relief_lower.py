"""Lips, chin and mouth corners, with the wrinkles of AUs 14, 15, 17, 20, 23 and 24."""

from __future__ import annotations

from aurel.data.synthetic.canvas import px
from aurel.data.synthetic.relief import Relief
from aurel.data.synthetic.scene import SIDES, Scene
from aurel.data.synthetic.texture import look_up


def add_mouth(scene: Scene, relief: Relief) -> None:
    """Add the bulge over the teeth, the philtrum, and bulges and fine lines of AU23 and AU24."""
    shape, a, thin = scene.shape, scene.a, scene.canvas.thin
    y, low, width = shape.mouth_y, shape.lower_lip_y, shape.mouth_w.mean(1)
    a23, a24 = a.mean(23), a.mean(24)
    window = scene.canvas.window(-1.45 * width, 1.45 * width, y - 0.24, low + 0.20)
    bumps = 0.040 * window.blob(0.0, y, 1.45 * width, 0.24)
    above = window.line(0.0, y - shape.lip_upper - 0.040, 0.8 * width, 0.045)
    bumps += above * px(0.030 * a24 + 0.012 * a23)
    below = window.line(0.0, low + 0.020, 0.75 * width, 0.040)
    bumps += below * px(0.034 * a24 + 0.012 * a23)
    relief.bump(window, bumps)
    philtrum_y = (shape.nose_y + 0.075 + y - shape.lip_upper) / 2
    lines = 0.20 * window.upright(0.6 * shape.nose_x, philtrum_y, 0.062, thin(0.018))
    if a23.any():
        for x in (-0.45, 0.0, 0.45):
            top = window.upright(
                x * width, y - shape.lip_upper - 0.028, 0.034, thin(0.009), slope=0.3 * x
            )
            bottom = window.upright(x * width, low + 0.022, 0.032, thin(0.009), slope=-0.3 * x)
            lines += top * px(0.42 * a23)
            lines += bottom * px(0.36 * a23)
    relief.groove(window, lines, 0.018, 0.27)


def add_chin(scene: Scene, relief: Relief) -> None:
    """Add the fold under the lower lip and the chin boss, with the bulge and pits of AU17."""
    shape, a17, thin = scene.shape, scene.a.mean(17), scene.canvas.thin
    a23, a24 = scene.a.mean(23), scene.a.mean(24)
    low, width = shape.lower_lip_y, shape.mouth_w.mean(1)
    middle = (low + shape.chin_y) / 2
    window = scene.canvas.window(-0.36, 0.36, low - 0.18, shape.chin_y + 0.06)
    fold_y = low + 0.050 - 0.012 * a17
    fold = window.line(0.0, fold_y, 0.85 * width, thin(0.026), -0.5 - 1.2 * a17)
    fold *= px(0.35 + 0.55 * a17 + 0.25 * a24 + 0.10 * a23)
    bumps = window.blob(0.0, middle + 0.035 - 0.045 * a17, 0.17, 0.115)
    bumps *= px(0.045 + 0.060 * a17)
    if a17.any():
        pits = window.blob(0.0, middle + 0.03 - 0.03 * a17, 0.17, 0.11)
        pits *= look_up(window.v * 220 + 1024, window.u * 220 + 1024)
        pits *= px(a17)
        bumps += 0.016 * pits
        fold += 0.50 * pits.clip(0)
    relief.bump(window, bumps)
    relief.groove(window, fold, 0.018, 0.27)


def add_corners(scene: Scene, relief: Relief) -> None:
    """Add shadow, dimple (AU14), marionette line (AU15) and stretch (AU20) of the mouth corners."""
    shape, a, thin = scene.shape, scene.a, scene.canvas.thin
    for side in SIDES:
        x = shape.mouth_w[:, side]
        y = shape.mouth_y + shape.corner_dy[:, side]
        window = scene.canvas.window(x - 0.10, x + 0.17, y - 0.10, y + 0.16, side)
        a12, a14, a15, a20 = (a[au][:, side] for au in (12, 14, 15, 20))
        lines = window.blob(x, y, 0.045, 0.036) * px(0.30 + 0.15 * a12 + 0.35 * a14)
        lines += window.upright(x + 0.038, y - 0.004, 0.080, thin(0.017), -5.0) * px(1.2 * a14)
        marionette = window.upright(x + 0.018, y + 0.078, 0.075, thin(0.017), slope=0.35)
        lines += marionette * px(a15 + 0.10 * scene.person.age)
        if a20.any():
            for dx, dy in ((0.05, -0.03), (0.085, 0.01), (0.05, 0.05)):
                stretch = window.upright(x + dx, y + dy, 0.055, thin(0.010), slope=0.25)
                lines += stretch * px(0.55 * a20)
        bumps = window.blob(x + 0.085, y, 0.075, 0.09) * px(0.022 * a14 + 0.012 * a12)
        bumps -= window.blob(x + 0.03, y, 0.035, 0.06) * px(0.022 * a14)
        bumps += window.blob(x - 0.035, y + 0.065, 0.06, 0.055) * px(0.014 * a15)
        relief.bump(window, bumps)
        relief.groove(window, lines, 0.018, 0.27)
