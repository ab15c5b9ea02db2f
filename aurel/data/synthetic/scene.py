"""The inputs of all painting functions: canvas, person, shape, action units and shared maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.actions import Actions
from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.canvas import Canvas, px
from aurel.data.synthetic.curves import JAW_TOP, jaw_fall
from aurel.data.synthetic.geometry import FaceShape
from aurel.data.synthetic.identity import Identity
from aurel.data.synthetic.texture import look_up

SIDES = (0, 1)


@dataclass(frozen=True)
class Scene:
    """A batch of faces, and maps over all pixels that several painting functions use.

    Args:
        canvas: the pictures in face coordinates.
        person: identities.
        shape: positions of the features.
        a: intensities of the action units.
        dome: 1 in the middle of the face, 0 on its outline, negative outside, (n, S, S).
        face: share of each pixel that the face covers, (n, S, S).
        texture: noise in face coordinates, which moves with the skin, (n, S, S).
    """

    canvas: Canvas
    person: Identity
    shape: FaceShape
    a: Actions
    dome: Array
    face: Array
    texture: Array


def make_scene(canvas: Canvas, person: Identity, shape: FaceShape, a: Actions) -> Scene:
    """Return the scene, with the outline of the face: a half ellipse above the ears, then a jaw."""
    u, v = canvas.u, canvas.v
    below = (v - JAW_TOP) * px(1 / (shape.chin_y - JAW_TOP))
    above = (v - JAW_TOP) * (-1 / 1.16)
    np.maximum(below, 0, out=below)
    np.maximum(above, 0, out=above)
    dome = u / (px(person.face_w) * (1 - px(person.taper) * below))
    dome *= dome
    dome += jaw_fall(px(person.jaw), below)
    above *= above
    dome += above
    np.subtract(1, dome, out=dome)
    face = canvas.edge(dome * px(person.face_w * np.float32(0.5)))
    texture = look_up(v * 70 + px(512 + person.age * 241), u * 70 + px(512 + person.mottle * 251))
    return Scene(canvas, person, shape, a, dome, face, texture)
