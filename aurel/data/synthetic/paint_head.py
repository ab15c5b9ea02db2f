"""Background, hair, neck, clothes, ears, bare skin and glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import blend, clamp, px
from aurel.data.synthetic.scene import SIDES, Scene
from aurel.data.synthetic.texture import look_up


@dataclass(frozen=True)
class Hair:
    """Share of each pixel that hair behind the face covers, (n, S, S), and color (n, 3, S, S)."""

    behind: Array
    color: Array


def paint_background(scene: Scene) -> Array:
    """Return new pictures, (n, 3, S, S), with a linear gradient of brightness."""
    canvas = scene.canvas
    capture = canvas.capture
    color = np.stack([capture.background_r, capture.background_g, capture.background_b], 1)
    color = 0.6 * color.mean(1, keepdims=True) + 0.4 * color
    gradient = px(capture.background_tilt_x) * canvas.u + px(capture.background_tilt_y) * canvas.v
    return color[:, :, None, None] + gradient[:, None]


def paint_hair_behind(scene: Scene, picture: Array, tone: Array) -> Hair:
    """Paint the mass of hair behind the head and, where it is long, down to the shoulders."""
    canvas, person = scene.canvas, scene.person
    u, v = canvas.u, canvas.v
    long_hair, volume = px(person.has_long_hair), person.hair_volume
    wild = px(0.02 + 0.10 * np.maximum(person.hair_curl - 0.5, 0)) * scene.texture
    square = u * u
    across = (v + 0.22) * px(1 / (1.0 + 0.6 * volume))
    across *= across
    narrower = clamp((v + 0.80) * 1.1)
    narrower *= narrower * (1.2 - 1.2 * long_hair)
    across += square * px(1 / (person.face_w + 0.05 + volume) ** 2) * (1 + narrower)
    cap = canvas.edge((1 - across + wild) * 0.45)
    cap *= clamp((0.10 + 1.2 * long_hair - v) * 4)
    reach = px(0.3 + 1.2 * np.maximum(person.hair_length, 0))
    fall = np.minimum(px(person.face_w + 0.04 + volume) - np.abs(u), (reach - v) * 0.4)
    fall += wild
    np.minimum(fall, v + 0.3, out=fall)
    behind = np.maximum(cap, canvas.edge(fall) * long_hair)
    curly = px((person.hair_curl > 0.6).astype(np.float32))
    strands = look_up(v * 9 + 14 * square + 552, u * 150 + 12 * v + 512)
    strands += curly * (look_up(v * 90 + 512, u * 90 + 512) - strands)
    color = tone[:, :, None, None] * (1 + 0.30 * strands + 0.16 * scene.texture)[:, None]
    blend(picture, behind, color)
    return Hair(behind, color)


def paint_body(scene: Scene, picture: Array, skin: Array, hair: Hair) -> None:
    """Paint neck, clothes and ears."""
    canvas, person = scene.canvas, scene.person
    u, v = canvas.u, canvas.v
    width = np.abs(u)
    neck = canvas.edge(px(0.66 * person.face_w) + np.maximum(v - 0.85, 0) * 0.35 - width)
    neck *= clamp((v - 0.35) * 10)
    shadow = 1 - 0.45 * clamp(1.0 - (v - px(scene.shape.chin_y)) * 2.4)
    blend(picture, neck, skin[:, :, None, None] * (0.92 * shadow)[:, None])
    shoulder = 0.16 * clamp((width - px(0.6 * person.face_w)) * 3)
    cloth = np.stack([person.cloth_r, person.cloth_g, person.cloth_b], 1)
    blend(picture, canvas.edge(v - 1.04 - 0.15 * u * u + shoulder), cloth)
    bare = 1 - 0.95 * person.has_long_hair
    for side in SIDES:
        x = person.face_w
        window = canvas.window(x - 0.08, x + 0.09, -0.22, 0.16, side)
        a, b = (window.u - px(x + 0.005)) / 0.07, (window.v + 0.03) / 0.165
        inside = 1 - a * a - b * b
        ear = canvas.edge(inside * 0.055) * px(bare)
        color = skin[:, :, None, None] * (0.78 + 0.14 * clamp(inside))[:, None]
        blend(window.of(picture), ear, color)


def paint_skin(scene: Scene, picture: Array, skin: Array, hair: Array) -> None:
    """Paint the face: mottled skin, flushed cheeks, and stubble where there is some."""
    canvas, person, shape = scene.canvas, scene.person, scene.shape
    mottle = 1 + 0.055 * px(0.4 + person.mottle) * scene.texture
    blend(picture, scene.face, skin[:, :, None, None] * mottle[:, None])
    for side in SIDES:
        window = canvas.window(0.10, 0.66, -0.10, 0.36, side)
        flush = window.blob(0.38, 0.13, 0.27, 0.21) * px(0.08 * person.redness + 0.02)
        part = window.of(picture)
        part[:, 1] *= 1 - flush
        part[:, 2] *= 1 - 0.8 * flush
    strength = person.stubble_strength
    if strength.any():
        window = canvas.window(-0.80, 0.80, 0.05, 1.25)
        beard = clamp((window.v - 0.33) * 3.2 + 1.1 * window.u * window.u)
        lips = window.blob(0.0, shape.mouth_y, 1.15 * shape.mouth_w.mean(1), 0.11)
        beard *= window.of(scene.face) * px(strength) * (1 - 0.8 * lips)
        beard *= 0.75 + 0.25 * window.of(scene.texture)
        blend(window.of(picture), beard, hair * np.float32(0.8))


def paint_hair_front(scene: Scene, picture: Array, hair: Hair, light: Array) -> None:
    """Paint hair over the forehead and temples, and a fringe where there is one."""
    canvas, person = scene.canvas, scene.person
    u, v = canvas.u, canvas.v
    soft = max(canvas.pixel, 1 / 28)
    out = np.abs(u) * px(1 / person.face_w)
    temple = np.maximum(out - px(0.62 - 0.30 * person.hair_recede), 0)
    temple *= temple
    line = px(person.hairline) + 0.08 * out * out + px(6.5 - 4 * person.hair_recede) * temple
    swept = px(person.fringe_length * (0.34 - 0.04 * person.hairline))
    line += swept * (1 - 0.35 * out * out + px(0.5 * person.hair_part) * u)
    line += px(0.015 + 0.04 * person.fringe_length) * scene.texture
    end = px(np.where(person.has_long_hair > 0, 0.4 + person.hair_length, -0.06))
    np.minimum(line, end.astype(np.float32), out=line)
    cover = np.maximum(scene.face, hair.behind)
    front = clamp((line - v) / soft + 0.5) * cover
    drape = clamp((out - 0.84 - 0.18 * clamp((v + 0.4) * 1.1)) * px(person.face_w) / soft)
    drape *= clamp((end - v) * 6) * cover * px(person.has_long_hair)
    np.maximum(front, drape, out=front)
    sheen = v + 0.72 + 0.25 * u * u
    sheen = np.maximum(1 - 16 * sheen * sheen, 0)
    blend(picture, front, hair.color * (0.70 + 0.32 * light + 0.22 * sheen)[:, None])


def paint_glasses(scene: Scene, picture: Array) -> None:
    """Paint dark rims around clear lenses, where the person wears glasses."""
    person, canvas = scene.person, scene.canvas
    strength = person.glasses_strength
    if not strength.any():
        return
    window = canvas.window(-0.74, 0.74, -0.42, 0.12)
    y = scene.shape.eye_y.mean(1)
    width = np.abs(window.u)
    a = (width - px(person.eye_x + 0.005)) * px(1 / (0.200 + 0.03 * person.glasses_size))
    b = (window.v - px(y + 0.02)) * px(1 / (0.145 + 0.03 * person.glasses_size))
    ring = (a * a) ** 2 + (b * b) ** 2
    rims = np.maximum(1 - np.abs(ring - 1) * (1.6 * min(0.06 / canvas.pixel, 1.6)), 0)
    bridge = _bar(window.v - px(y - 0.045), canvas.thin(0.016))
    bridge *= width < px(person.eye_x - 0.190)
    temple = _bar(window.v - px(y - 0.06), canvas.thin(0.015)) * window.of(scene.face)
    temple *= width > px(person.eye_x + 0.210)
    np.maximum(rims, bridge, out=rims)
    np.maximum(rims, temple, out=rims)
    blend(window.of(picture), rims * px(strength), np.full((1, 3), 0.07, np.float32))


def _bar(distance: Array, half_width: float) -> Array:
    return np.maximum(1 - np.abs(distance) * (1 / half_width), 0)
