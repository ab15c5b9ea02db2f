"""The points of the face at which each action unit is visible, as in the FACS manual."""

from __future__ import annotations

import numpy as np

from aurel.data.synthetic.actions import SHOWN_AUS
from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.geometry import FaceShape
from aurel.data.synthetic.identity import Identity


def evidence_points(person: Identity, shape: FaceShape) -> list[Array]:
    """Return, for each of `SHOWN_AUS`, face coordinates of its evidence, (n, P, 2).

    Each point is listed on both sides, image left first.
    """
    points = _points(person, shape)
    return [_both_sides(points[au]) for au in SHOWN_AUS]


def anchor_points(person: Identity, shape: FaceShape) -> Array:
    """Return each unit's first point on both sides, (n, 18, 2, 2): (unit, side, xy)."""
    return np.stack([points[:, :2] for points in evidence_points(person, shape)], 1)


def _points(person: Identity, shape: FaceShape) -> dict[int, list[tuple[Array, Array]]]:
    """Return outward x and y, (n, 2) each, of the points of every unit."""
    eye = (person.eye_x[:, None] + 0 * shape.eye_y, shape.eye_y)
    inner_brow = (shape.brow_inner_x + 0.03, shape.brow_inner_y)
    outer_x = 0.25 * shape.brow_inner_x + 0.75 * shape.brow_outer_x
    outer_brow = (outer_x, 0.5 * (shape.brow_mid_y + shape.brow_outer_y))
    glabella = (0 * shape.brow_inner_x + 0.048, shape.brow_inner_y)
    mouth_y = shape.mouth_y[:, None] + 0 * shape.mouth_w
    corner = (shape.mouth_w, mouth_y + shape.corner_dy)
    lip_top = (0.35 * shape.mouth_w, mouth_y - (shape.lip_upper + shape.gap_upper)[:, None])
    lip_low = (0.25 * shape.mouth_w, shape.lower_lip_y[:, None] + 0 * shape.mouth_w)
    seam = (0.3 * shape.mouth_w, mouth_y)
    boss = (0 * mouth_y + 0.07, 0.5 * (lip_low[1] + shape.chin_y[:, None]) + 0.02)
    return {
        1: [inner_brow, (inner_brow[0], inner_brow[1] - 0.10)],
        2: [outer_brow, (outer_brow[0], outer_brow[1] - 0.06)],
        4: [inner_brow, glabella],
        5: [eye],
        6: [(eye[0], eye[1] + 0.14), (eye[0] + shape.eye_w + 0.05, eye[1])],
        7: [eye],
        9: [(0 * mouth_y + 0.095, shape.wing_y - 0.20), (0 * mouth_y + 0.03, eye[1] - 0.05)],
        10: [lip_top],
        12: [corner],
        14: [(corner[0] + 0.04, corner[1])],
        15: [corner, (corner[0] + 0.015, corner[1] + 0.06)],
        17: [boss],
        20: [corner],
        23: [seam, lip_low],
        24: [seam, lip_low],
        25: [seam],
        26: [seam, lip_low],
        43: [eye],
    }


def _both_sides(points: list[tuple[Array, Array]]) -> Array:
    sign = np.array((-1, 1), np.float32)
    both = [np.stack([x * sign, y], -1) for x, y in points]
    return np.concatenate(both, 1).astype(np.float32)
