"""Identity of a person: proportions, colors, hair, glasses. Face coordinates are [-1, 1]^2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.arrays import Array, make_table, numbers_needed, uniform

SKIN = np.array(
    [
        (0.96, 0.82, 0.73),
        (0.91, 0.72, 0.60),
        (0.81, 0.60, 0.46),
        (0.66, 0.45, 0.32),
        (0.52, 0.35, 0.245),
        (0.41, 0.27, 0.195),
    ],
    np.float32,
)
HAIR = np.array(
    [
        (0.07, 0.06, 0.06),
        (0.16, 0.11, 0.08),
        (0.30, 0.19, 0.11),
        (0.42, 0.23, 0.13),
        (0.68, 0.54, 0.35),
        (0.60, 0.58, 0.56),
    ],
    np.float32,
)
IRIS = np.array(
    [
        (0.20, 0.12, 0.07),
        (0.32, 0.20, 0.10),
        (0.30, 0.38, 0.20),
        (0.25, 0.42, 0.55),
        (0.38, 0.46, 0.50),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Identity:
    """A row per person. Lengths are in face coordinates: x right, y down, the crop is [-1, 1]^2."""

    skin_tone: Array = uniform(0, 1)
    redness: Array = uniform(0, 1)
    age: Array = uniform(0, 1)
    face_w: Array = uniform(0.60, 0.70)
    jaw: Array = uniform(0.25, 0.85)
    taper: Array = uniform(0.10, 0.24)
    chin: Array = uniform(0.92, 1.00)
    eye_x: Array = uniform(0.295, 0.335)
    eye_y: Array = uniform(-0.200, -0.155)
    eye_w: Array = uniform(0.130, 0.155)
    eye_h: Array = uniform(0.050, 0.070)
    eye_tilt: Array = uniform(-0.06, 0.10)
    lid_crease: Array = uniform(0.022, 0.048)
    lid_droop: Array = uniform(-0.006, 0.006)
    iris_r: Array = uniform(0.053, 0.061)
    brow_rise: Array = uniform(0.150, 0.205)
    brow_gap: Array = uniform(0.125, 0.165)
    brow_len: Array = uniform(0.24, 0.30)
    brow_thick: Array = uniform(0.016, 0.033)
    brow_arch: Array = uniform(0.012, 0.045)
    brow_dark: Array = uniform(0.50, 0.90)
    nose_w: Array = uniform(0.112, 0.155)
    nose_y: Array = uniform(0.205, 0.265)
    nose_h: Array = uniform(0.75, 1.20)
    nose_bridge: Array = uniform(0.048, 0.072)
    mouth_y: Array = uniform(0.485, 0.545)
    mouth_w: Array = uniform(0.225, 0.280)
    lip_upper: Array = uniform(0.032, 0.058)
    lip_lower: Array = uniform(0.046, 0.078)
    lip_red: Array = uniform(0, 1)
    cheek: Array = uniform(0.6, 1.3)
    socket: Array = uniform(0.5, 1.1)
    mottle: Array = uniform(0.3, 1.0)
    asymmetry: Array = uniform(-0.006, 0.006)
    hairline: Array = uniform(-1.00, -0.76)
    hair_volume: Array = uniform(0.03, 0.15)
    hair_length: Array = uniform(-1, 1)
    hair_curl: Array = uniform(0, 1)
    hair_part: Array = uniform(-1, 1)
    hair_recede: Array = uniform(0, 1)
    fringe: Array = uniform(0, 1)
    stubble: Array = uniform(0, 1)
    glasses: Array = uniform(0, 1)
    glasses_size: Array = uniform(0, 1)
    hair_color: Array = uniform(0, 1)
    iris_color: Array = uniform(0, 1)
    cloth_r: Array = uniform(0.1, 0.8)
    cloth_g: Array = uniform(0.1, 0.8)
    cloth_b: Array = uniform(0.1, 0.8)

    @property
    def has_long_hair(self) -> Array:
        """1 where the hair reaches below the ears, else 0."""
        return (self.hair_length > 0.1).astype(np.float32)

    @property
    def fringe_length(self) -> Array:
        """Length of the hair on the forehead, 0 (most people) to 1."""
        return np.maximum(self.fringe - 0.75, 0) / 0.25

    @property
    def stubble_strength(self) -> Array:
        """Density of a beard of some days, 0 (most people) to about 0.5."""
        return np.maximum(self.stubble - 0.65, 0) * 1.5 * (1 - self.has_long_hair)

    @property
    def glasses_strength(self) -> Array:
        """Opacity of the rims of the glasses; 0 for five people in six."""
        return np.where(self.glasses > 0.84, self.glasses * np.float32(0.9), np.float32(0))

    def colors(self) -> tuple[Array, Array, Array, Array]:
        """Return the colors of skin, lips, hair and iris, each (n, 3) in 0..1."""
        step = self.skin_tone * np.float32(len(SKIN) - 1)
        below = np.minimum(step.astype(int), len(SKIN) - 2)
        share = (step - below)[:, None].astype(np.float32)
        red = self.redness[:, None] * np.array((0.03, -0.03, -0.05), np.float32)
        skin = (SKIN[below] * (1 - share) + SKIN[below + 1] * share) * (1 + red)
        rose = 1 - self.lip_red[:, None] * np.array((0.06, 0.22, 0.18), np.float32)
        lips = skin * np.array((0.94, 0.76, 0.76), np.float32) * rose
        hair = HAIR[(self.hair_color * 5.99).astype(int)]
        hair = np.where(self.skin_tone[:, None] > 0.62, 0.3 * hair + 0.7 * HAIR[0], hair)
        iris = IRIS[(self.iris_color * 4.99).astype(int)]
        iris = np.where(self.skin_tone[:, None] > 0.5, IRIS[0], iris)
        return skin, lips, hair.astype(np.float32), iris


def person(seed: int, subject: int) -> Identity:
    """Return the identity of one subject as a table of one row."""
    rng = np.random.default_rng([seed, 101, subject])
    return make_table(Identity, rng.random((1, numbers_needed(Identity))))
