"""Objects that cover parts of the face, and the action units that they hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.actions import SHOWN_AUS
from aurel.data.synthetic.arrays import Array, DoubleArray, rows
from aurel.data.synthetic.canvas import Canvas, blend, px
from aurel.data.synthetic.evidence import evidence_points
from aurel.data.synthetic.geometry import FaceShape
from aurel.data.synthetic.identity import Identity
from aurel.data.synthetic.texture import look_up

KINDS = ("nothing", "brim", "dark glasses", "mask", "half face", "card", "patches")
ZONES = (
    "inner brows", "outer brows", "eyes", "cheeks", "nose", "mouth corners", "mouth", "chin",
)  # fmt: skip
NUMBERS = 10 + len(ZONES)
_PATCHES_OF_TEN = 6


@dataclass(frozen=True)
class Occluders:
    """A row per picture. Patches hide single units, while units that occur with them stay visible.

    Args:
        kind: index into `KINDS`, (n,).
        color: (n, 3).
        form: five numbers in 0..1 for the position and the size of the object, (n, 5).
        zones: True for each of `ZONES` that the patches cover, on both sides, (n, 8) bool.
    """

    kind: NDArray[np.int64]
    color: Array
    form: Array
    zones: NDArray[np.bool_]


def sample_occluders(numbers: DoubleArray, probability: float) -> Occluders:
    """Return n occluders from uniform numbers; six of ten are patches.

    Args:
        numbers: uniform random numbers, (n, NUMBERS).
        probability: share of pictures in which the face is covered.
    """
    patches = len(KINDS) - 1
    other = 1 + (numbers[:, 1] * (patches - 1)).astype(np.int64)
    kind = np.where(numbers[:, 2] * 10 < _PATCHES_OF_TEN, patches, other)
    kind = np.where(numbers[:, 0] < probability, kind, 0)
    color = (0.08 + 0.75 * numbers[:, 3:6]).astype(np.float32)
    color = 0.55 * color + 0.45 * color.mean(1, keepdims=True)
    form = numbers[:, 5:10].astype(np.float32)
    how_many = 2 + (numbers[:, 9] * 3).astype(np.int64)
    order = numbers[:, 10:].argsort(1).argsort(1)
    return Occluders(kind, color, form, order < how_many[:, None])


def hidden_units(occluders: Occluders, person: Identity, shape: FaceShape) -> NDArray[np.bool_]:
    """Return whether all evidence of each of `SHOWN_AUS` is covered, (n, 18) bool."""
    hidden = np.ones((len(occluders.kind), len(SHOWN_AUS)), bool)
    for column, points in enumerate(evidence_points(person, shape)):
        covered = _depth_of_all(occluders, person, shape, points[..., :1], points[..., 1:])
        hidden[:, column] = (covered > 0).all((1, 2))
    return hidden


def paint_occluders(
    canvas: Canvas, picture: Array, occluders: Occluders, person: Identity, shape: FaceShape
) -> None:
    """Paint textured objects over the face."""
    for kind in range(1, len(KINDS)):
        index = np.flatnonzero(occluders.kind == kind)
        if not len(index):
            continue
        u, v = canvas.u[index], canvas.v[index]
        chosen = rows(occluders, index)
        depth = _DEPTH[kind](chosen, rows(person, index), rows(shape, index), u, v)
        cover = canvas.edge(depth)
        color = chosen.color * np.float32(0.25 if KINDS[kind] == "dark glasses" else 1)
        grain = 1 + 0.22 * look_up(v * 23 + (512 + 7 * kind), u * 23 + 543)
        grain += px(0.15 * canvas.capture.light_x[index]) * u
        part = picture[index]
        blend(part, cover, color[:, :, None, None] * grain[:, None])
        picture[index] = part


def _depth_of_all(
    occluders: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array
) -> Array:
    """Return the depth of each point (n, P, 1) inside of the occluder; negative outside."""
    depth = np.full(np.broadcast_shapes(u.shape, v.shape), -1, np.float32)
    for kind in range(1, len(KINDS)):
        index = np.flatnonzero(occluders.kind == kind)
        if len(index):
            depth[index] = _DEPTH[kind](
                rows(occluders, index), rows(person, index), rows(shape, index), u[index], v[index]
            )
    return depth


def _brim(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    """Return the depth inside of a brim of a hat, or a hand on the forehead, above the eyes."""
    bottom = shape.eye_y.mean(1) - 0.11 + 0.05 * o.form[:, 0]
    top = -0.80 - 0.2 * o.form[:, 1]
    y = v + px(0.10 * (o.form[:, 2] - 0.5)) * u + 0.05 * u * u
    return np.minimum(px(bottom) - y, y - px(top))


def _dark_glasses(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    y = shape.eye_y.mean(1)
    lens = _rounded(
        np.abs(u), v, person.eye_x, y + 0.015, 0.24 + 0.05 * o.form[:, 0],
        0.15 + 0.05 * o.form[:, 1],
    )  # fmt: skip
    return np.maximum(lens, 0.018 - np.abs(v - px(y - 0.03)))


def _mask(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    """Return the depth inside of a mask, scarf or hand, from above the mouth down."""
    top = shape.mouth_y - 0.16 - 0.10 * o.form[:, 0]
    y = v + px(0.22 * o.form[:, 1]) * u * u
    return np.minimum(y - px(top), px(0.60 + 0.3 * o.form[:, 2]) - np.abs(u))


def _half_face(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    sign = np.where(o.form[:, 0] > 0.5, np.float32(1), np.float32(-1))
    return u * px(sign) - px(0.02 + 0.14 * o.form[:, 1]) + px(0.3 * (o.form[:, 2] - 0.5)) * v


def _card(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    """Return the depth inside of a rotated rectangle at a random position."""
    half = o.form[:, 2] - np.float32(0.5)
    cosine, sine = px((1 - half**2) / (1 + half**2)), px(2 * half / (1 + half**2))
    dx, dy = u - px(1.1 * o.form[:, 0] - 0.55), v - px(1.1 * o.form[:, 1] - 0.5)
    return np.minimum(
        px(0.18 + 0.22 * o.form[:, 3]) - np.abs(cosine * dx + sine * dy),
        px(0.14 + 0.20 * o.form[:, 4]) - np.abs(cosine * dy - sine * dx),
    )


def _patches(o: Occluders, person: Identity, shape: FaceShape, u: Array, v: Array) -> Array:
    """Return the depth inside of rounded patches on some zones, the same on both sides."""
    width = np.abs(u)
    deepest = np.full(np.broadcast_shapes(u.shape, v.shape), -1, np.float32)
    for zone, ellipse in enumerate(_zones(person, shape)):
        index = np.flatnonzero(o.zones[:, zone])
        if len(index):
            x, y, radius_x, radius_y = (value[index] for value in ellipse)
            depth = _rounded(width[index], v[index], x, y, radius_x, radius_y)
            deepest[index] = np.maximum(deepest[index], depth)
    return deepest


def _zones(person: Identity, shape: FaceShape) -> list[tuple[Array, Array, Array, Array]]:
    """Return center (outward x, y) and radii of each zone, (n,) each."""
    brow_y, eye_y = shape.brow_mid_y.mean(1), shape.eye_y.mean(1)
    mouth_w, corner_y = shape.mouth_w.mean(1), shape.mouth_y + 0.6 * shape.corner_dy.mean(1)
    chin_y = (shape.mouth_y + shape.chin_y) / 2 + 0.05
    table = (
        (0.10, brow_y - 0.06, 0.14, 0.22),
        (0.36, brow_y - 0.05, 0.17, 0.17),
        (person.eye_x + 0.03, eye_y + 0.05, 0.22, 0.145),
        (0.42, 0.16, 0.18, 0.16),
        (0.0, shape.nose_y - 0.14, 0.17, 0.24),
        (mouth_w + 0.03, corner_y, 0.13, 0.18),
        (0.0, shape.mouth_y, 0.22, 0.14),
        (0.0, chin_y, 0.25, 0.15),
    )
    like = np.zeros_like(brow_y)
    return [(like + x, like + y, like + rx, like + ry) for x, y, rx, ry in table]


def _rounded(u: Array, v: Array, x: Array, y: Array, radius_x: Array, radius_y: Array) -> Array:
    """Return the depth inside of an ellipse, near its edge roughly in face coordinates."""
    a, b = (u - px(x)) * px(1 / radius_x), (v - px(y)) * px(1 / radius_y)
    a *= a
    b *= b
    return (1 - a * a - b * b) * 0.04


_DEPTH = dict(enumerate((_brim, _dark_glasses, _mask, _half_face, _card, _patches), start=1))
