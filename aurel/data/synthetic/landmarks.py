"""The 68 landmarks of the iBUG layout, exact, as computed from the curves of the pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.arrays import Array, DoubleArray
from aurel.data.synthetic.curves import (
    JAW_TOP,
    brow_line,
    corner_line,
    jaw_fall,
    lip_lines,
    lower_lid,
    upper_lid,
)
from aurel.data.synthetic.geometry import FaceShape
from aurel.data.synthetic.identity import Identity

TO_49: NDArray[np.int64] = np.array([i for i in range(17, 68) if i not in (60, 64)])
MIRROR_68: NDArray[np.int64] = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
)

_DOWN_THE_JAW = (0.0, 0.19509, 0.38268, 0.55557, 0.70711, 0.83147, 0.92388, 0.98079, 1.0)
_NOSE_BASE = ((-0.78, 0.035), (-0.42, 0.055), (0.0, 0.068), (0.42, 0.055), (0.78, 0.035))
_UPPER_LIP = (-1.0, -0.62, -0.25, 0.0, 0.25, 0.62, 1.0)
_LOWER_LIP = (0.62, 0.25, 0.0, -0.25, -0.62)
_INNER_UPPER = (-0.9, -0.35, 0.0, 0.35, 0.9)
_INNER_LOWER = (0.35, 0.0, -0.35)


def face_landmarks(person: Identity, shape: FaceShape) -> DoubleArray:
    """Return 68 points in face coordinates, (n, 68, 2): x right, y down."""
    points = np.zeros((len(shape.mouth_y), 68, 2))
    _jaw(points, person, shape)
    _brows_and_eyes(points, person, shape)
    _nose(points, shape)
    _mouth(points, shape)
    return points


def _jaw(points: DoubleArray, person: Identity, shape: FaceShape) -> None:
    for index, t in enumerate(_DOWN_THE_JAW):
        wide = np.sqrt(np.maximum(1 - jaw_fall(person.jaw, np.full_like(person.jaw, t)), 0))
        x = person.face_w * (1 - person.taper * t) * wide
        y = JAW_TOP + t * (shape.chin_y - JAW_TOP)
        points[:, index] = np.stack([-x, y], 1)
        points[:, 16 - index] = np.stack([x, y], 1)


def _brows_and_eyes(points: DoubleArray, person: Identity, shape: FaceShape) -> None:
    for side, sign in ((0, -1), (1, 1)):
        inner, middle = shape.brow_inner_y[:, side], shape.brow_mid_y[:, side]
        outer = shape.brow_outer_y[:, side]
        start, end = shape.brow_inner_x[:, side], shape.brow_outer_x[:, side]
        for k in range(5):
            t = np.full_like(start, k / 4)
            index = 22 + k if side else 21 - k
            points[:, index, 0] = sign * (start + (end - start) * t)
            points[:, index, 1] = brow_line(inner, middle, outer, t)
        first = 42 if side else 36
        for k, position in enumerate((-1.0, -0.4, 0.4, 1.0, 0.4, -0.4)):
            x = np.full_like(person.eye_x, sign * position)
            width = shape.eye_w[:, side]
            y = shape.eye_y[:, side] - person.eye_tilt * width * x
            if k in (1, 2):
                y = y + upper_lid(shape.lid_upper[:, side], x)
            if k in (4, 5):
                y = y + lower_lid(shape.lid_lower[:, side], shape.lid_flat[:, side], x)
            points[:, first + k, 0] = sign * (person.eye_x + width * x)
            points[:, first + k, 1] = y


def _nose(points: DoubleArray, shape: FaceShape) -> None:
    top = shape.eye_y.mean(1)
    for k in range(4):
        points[:, 27 + k, 0] = shape.nose_x * (k / 3)
        points[:, 27 + k, 1] = top + (shape.nose_y - 0.02 - top) * (k / 3)
    for k, (x, dy) in enumerate(_NOSE_BASE):
        points[:, 31 + k, 0] = shape.nose_x + x * shape.nose_w
        points[:, 31 + k, 1] = (shape.wing_y[:, int(x > 0)] if x else shape.nose_y) + dy


def _mouth(points: DoubleArray, shape: FaceShape) -> None:
    def set_points(first: int, positions: tuple[float, ...], edge: str) -> None:
        for k, t in enumerate(positions):
            side, x = int(t > 0), np.full_like(shape.mouth_y, t)
            lines = lip_lines(
                x, shape.lip_upper, shape.lip_lower, shape.gap_upper, shape.gap_lower,
                shape.lip_raise,
            )  # fmt: skip
            height: Array = getattr(lines, edge)
            level = shape.mouth_y + corner_line(shape.corner_dy[:, side], x)
            points[:, first + k, 0] = shape.mouth_w[:, side] * x
            points[:, first + k, 1] = level + height

    set_points(48, _UPPER_LIP, "outer_upper")
    set_points(55, _LOWER_LIP, "outer_lower")
    set_points(60, _INNER_UPPER, "inner_upper")
    set_points(65, _INNER_LOWER, "inner_lower")
