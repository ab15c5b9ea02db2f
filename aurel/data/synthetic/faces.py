"""Pictures and exact landmarks of faces, from people, action units and conditions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.actions import SHOWN_AUS, Actions
from aurel.data.synthetic.arrays import Array, DoubleArray, rows
from aurel.data.synthetic.camera import photograph
from aurel.data.synthetic.canvas import make_canvas
from aurel.data.synthetic.capture import Capture, to_pixels
from aurel.data.synthetic.geometry import face_shape
from aurel.data.synthetic.identity import Identity
from aurel.data.synthetic.landmarks import face_landmarks
from aurel.data.synthetic.occluders import Occluders, paint_occluders
from aurel.data.synthetic.paint_eyes import paint_brows, paint_eyes
from aurel.data.synthetic.paint_head import (
    paint_background,
    paint_body,
    paint_glasses,
    paint_hair_behind,
    paint_hair_front,
    paint_skin,
)
from aurel.data.synthetic.paint_mouth import paint_mouth
from aurel.data.synthetic.relief import head, shade
from aurel.data.synthetic.relief_lower import add_chin, add_corners, add_mouth
from aurel.data.synthetic.relief_upper import (
    add_brow,
    add_cheeks,
    add_eyes,
    add_forehead,
    add_nose,
)
from aurel.data.synthetic.scene import make_scene

_PIXELS_AT_ONCE = 16 * 96 * 96
_RELIEF = (
    add_forehead, add_brow, add_eyes, add_cheeks, add_nose, add_mouth, add_chin, add_corners,
)  # fmt: skip


@dataclass(frozen=True)
class Faces:
    """Pictures (n, 3, S, S) uint8, their 68 landmarks in pixels (n, 68, 2) and on the face."""

    images: NDArray[np.uint8]
    landmarks: Array
    face_landmarks: DoubleArray


def render(
    person: Identity,
    actions: Array,
    capture: Capture,
    occluders: Occluders | None = None,
    size: int = 96,
    chunk: int | None = None,
) -> Faces:
    """Draw n faces; each depends on its own row only.

    Args:
        person: n rows of identities.
        actions: intensities in 0..1 of `SHOWN_AUS`, (n, 18, 2), image left then image right.
        capture: pose, light and camera, n rows.
        occluders: objects that cover the face, n rows; None for none.
        size: side of a picture in pixels.
        chunk: number of faces drawn at once; by default as many as fit the processor's cache.

    Raises:
        ValueError: the actions have another shape.
    """
    count = len(person.face_w)
    if actions.shape != (count, len(SHOWN_AUS), 2):
        raise ValueError(
            f"actions must have shape {(count, len(SHOWN_AUS), 2)}, got {actions.shape}"
        )
    chunk = chunk or max(1, min(16, _PIXELS_AT_ONCE // size**2))
    images = np.empty((count, 3, size, size), np.uint8)
    points = np.empty((count, 68, 2))
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        images[part], points[part] = _render(
            rows(person, part),
            Actions(actions[part].astype(np.float32)),
            rows(capture, part),
            None if occluders is None else rows(occluders, part),
            size,
        )
    return Faces(images, to_pixels(points, capture, size), points)


def _render(
    person: Identity, a: Actions, capture: Capture, occluders: Occluders | None, size: int
) -> tuple[NDArray[np.uint8], DoubleArray]:
    shape = face_shape(person, a, capture)
    canvas = make_canvas(size, capture)
    scene = make_scene(canvas, person, shape, a)
    skin, lips, tone, iris = person.colors()

    picture = paint_background(scene)
    hair = paint_hair_behind(scene, picture, tone)
    paint_body(scene, picture, skin, hair)
    paint_skin(scene, picture, skin, tone)

    relief = head(scene)
    for add in _RELIEF:
        add(scene, relief)
    light, gloss = shade(scene, relief)
    light = 1 + scene.face * (light - 1)
    picture *= light[:, None]
    picture += (scene.face * gloss)[:, None]

    paint_eyes(scene, picture, iris, light)
    paint_brows(scene, picture, tone, light)
    paint_mouth(scene, picture, lips, light)
    paint_hair_front(scene, picture, hair, light)
    paint_glasses(scene, picture)
    if occluders is not None:
        paint_occluders(canvas, picture, occluders, person, shape)
    return photograph(picture, capture), face_landmarks(person, shape)
