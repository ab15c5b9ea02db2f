"""Positions of the features of a face, as a function of the person and of the action units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.actions import Actions
from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.capture import Capture
from aurel.data.synthetic.identity import Identity


@dataclass(frozen=True)
class FaceShape:
    """Positions in face coordinates; x increases outward on each side.

    Fields are (n, 2), image left then image right, or (n,) where both sides have one value.
    """

    eye_y: Array
    eye_w: Array
    lid_upper: Array
    lid_lower: Array
    lid_flat: Array
    brow_inner_x: Array
    brow_outer_x: Array
    brow_inner_y: Array
    brow_mid_y: Array
    brow_outer_y: Array
    nose_x: Array
    nose_y: Array
    nose_w: Array
    wing_y: Array
    mouth_y: Array
    mouth_w: Array
    corner_dy: Array
    lip_upper: Array
    lip_lower: Array
    gap_upper: Array
    gap_lower: Array
    lip_raise: Array
    chin_y: Array
    cheek_y: Array
    cheek_height: Array
    furrow: Array
    furrow_upper: Array

    @property
    def lower_lip_y(self) -> Array:
        """Position y of the lower edge of the lower lip in the middle, (n,)."""
        return self.mouth_y + self.gap_lower + self.lip_lower


def face_shape(person: Identity, a: Actions, capture: Capture) -> FaceShape:
    """Return the shape of a neutral face moved by action units, as in the FACS manual."""
    skew = person.asymmetry[:, None] * np.array((-1, 1), np.float32)
    eye_y = person.eye_y[:, None] + skew
    brow_y = (person.eye_y - person.brow_rise)[:, None]
    upper, lower = _lids(person, a)
    gap_upper, gap_lower = _lip_gap(a)
    thin = (1 - 0.50 * a.mean(23)) * (1 - 0.55 * a.mean(24))
    thin *= (1 - 0.22 * a.mean(20)) * (1 - 0.18 * a.mean(12))
    wider = 0.30 * a[12] + 0.30 * a[20] + 0.06 * a[14] + 0.03 * a[15] + 0.03 * a[10]
    wider = wider - 0.14 * a[23] - 0.07 * a[24] - 0.15 * a[26] - 0.06 * a[17]
    corner = 0.078 * a[15] + 0.030 * a[17] + 0.010 * a[20] + 0.024 * a[10] + 0.010 * a[9]
    corner = corner - 0.098 * a[12] - 0.010 * a[14] - 0.010 * a[26] - 0.004 * a[25]
    raised = 0.42 * a[6] + 0.26 * a[12] + 0.12 * a[10] + 0.08 * a[9]
    furrow = 0.55 * a[12] + 0.62 * a[10] + 0.48 * a[9] + 0.30 * a[6] + 0.12 * a[14] + 0.10 * a[15]
    pulled_up = a[9] + a[10]
    return FaceShape(
        eye_y=eye_y,
        eye_w=person.eye_w[:, None] * (1 - 0.05 * a[6] - 0.03 * a[9]),
        lid_upper=upper,
        lid_lower=lower,
        lid_flat=np.minimum(0.7 * a[7] + 0.2 * a[6], 1),
        brow_inner_x=person.brow_gap[:, None] - 0.045 * a[4] - 0.012 * a[9] + 0.004 * a[1],
        brow_outer_x=(person.brow_gap + person.brow_len)[:, None] + 0 * a[1],
        brow_inner_y=(
            brow_y + 0.010 - 0.100 * a[1] - 0.020 * a[2] + 0.080 * a[4] + 0.040 * a[9]
            - 0.010 * a[5]
        ),
        brow_mid_y=(
            brow_y - person.brow_arch[:, None] - 0.052 * a[1] - 0.088 * a[2] + 0.066 * a[4]
            + 0.018 * a[9] - 0.012 * a[5]
        ),
        brow_outer_y=brow_y + 0.015 - 0.012 * a[1] - 0.100 * a[2] + 0.034 * a[4] + 0.012 * a[6],
        nose_x=0.045 * capture.yaw,
        nose_y=person.nose_y - 0.012 * a.mean(9),
        nose_w=person.nose_w
        * (1 + 0.10 * a.mean(9) + 0.10 * a.mean(10) + 0.08 * a.mean(12) + 0.02 * a.mean(20)),
        wing_y=person.nose_y[:, None] - 0.065 * a[9] - 0.030 * a[10] - 0.012 * a[12],
        mouth_y=(
            person.mouth_y + 0.048 * a.mean(26) + 0.008 * a.mean(25) - 0.045 * a.mean(17)
            - 0.012 * a.mean(9) - 0.012 * a.mean(10) - 0.006 * a.mean(24)
        ),
        mouth_w=person.mouth_w[:, None] * (1 + wider),
        corner_dy=corner + skew,
        lip_upper=person.lip_upper * thin * (1 + 0.10 * a.mean(10) + 0.05 * a.mean(17)),
        lip_lower=person.lip_lower * thin * (1 + 0.10 * a.mean(17) - 0.10 * a.mean(26)),
        gap_upper=gap_upper,
        gap_lower=gap_lower,
        lip_raise=0.030 * a.mean(10) + 0.018 * a.mean(9),
        chin_y=person.chin + 0.115 * a.mean(26) + 0.012 * a.mean(25) - 0.022 * a.mean(17),
        cheek_y=0.14 - 0.085 * a[6] - 0.045 * a[12] - 0.025 * a[9] - 0.02 * a[10],
        cheek_height=person.cheek[:, None] * (0.55 + raised),
        furrow=np.minimum(0.16 * person.age[:, None] + furrow, 1.25),
        furrow_upper=pulled_up / (pulled_up + a[12] + 0.5 * a[6] + 0.35),
    )  # fmt: skip


def _lids(person: Identity, a: Actions) -> tuple[Array, Array]:
    """Return the distances of the lids above and below the eye's axis, each (n, 2)."""
    height = person.eye_h[:, None]
    lower = height * (0.62 - 0.50 * a[7] - 0.42 * a[6] - 0.22 * a[9] - 0.10 * a[12] + 0.08 * a[5])
    lower = np.maximum(lower, -0.012)
    upper = height * (1 + 0.62 * a[5] - 0.20 * a[7] - 0.16 * a[6] - 0.10 * a[4] - 0.18 * a[9])
    upper = np.maximum(upper + person.lid_droop[:, None], 0.010)
    return upper * (1 - a[43]) - 0.75 * a[43] * lower, lower


def _lip_gap(a: Actions) -> tuple[Array, Array]:
    """Return the opening of the lips above and below the mouth's axis, each (n,)."""
    part = 0.045 * a.mean(25) + 0.030 * a.mean(25) * a.mean(12)
    drop = 0.135 * a.mean(26) * (0.35 + 0.65 * np.minimum(1.5 * a.mean(25) + 0.25, 1))
    press = np.minimum(a.mean(24) + 0.7 * a.mean(23) + 0.6 * a.mean(17), 1)
    gap = (part + drop) * (1 - 0.85 * press * (1 - 0.5 * a.mean(26)))
    upper = 0.32 * gap + (0.016 * a.mean(10) + 0.008 * a.mean(9)) * (1 - press)
    return upper, 0.68 * gap + 0.006 * a.mean(10) * (1 - press)
