"""Outlines of features, used for the pictures and for the landmarks, which are therefore exact.

Each is a function of a coordinate along the feature; arguments broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aurel.data.synthetic.arrays import Array

JAW_TOP = -0.05


def upper_lid(height: Array, x: Array) -> Array:
    """Return y of the upper lid relative to the eye's axis; x is -1 (inner) to 1 (outer)."""
    return -height * np.maximum(1 - x * x, 0) * (1 - 0.18 * x) * (1 + 0.2 * x * x)


def lower_lid(height: Array, flat: Array, x: Array) -> Array:
    """Return y of the lower lid relative to the eye's axis."""
    return height * np.maximum(1 - x * x, 0) * (1 + 0.6 * flat * x * x) * (1 + 0.18 * x)


def brow_line(inner: Array, middle: Array, outer: Array, t: Array) -> Array:
    """Return y of the brow: a parabola through its inner end, middle and outer end."""
    return inner + t * ((4 * middle - 3 * inner - outer) + t * (2 * inner - 4 * middle + 2 * outer))


def jaw_fall(jaw: Array, t: Array) -> Array:
    """Return the decrease of the squared half width at t, from 0 at the ear to 1 at the chin."""
    square = t * t
    return square * ((1 - jaw) + jaw * square)


def corner_line(rise: Array, x: Array) -> Array:
    """Return y of the line between the lips: 0 in the middle, `rise` at the corners."""
    square = np.minimum(x * x, 1.3)
    return rise * square * (0.45 + 0.55 * square)


@dataclass(frozen=True)
class LipLines:
    """The four edges of the lips, relative to the line between the lips."""

    outer_upper: Array
    inner_upper: Array
    inner_lower: Array
    outer_lower: Array


def lip_lines(
    x: Array,
    lip_upper: Array,
    lip_lower: Array,
    gap_upper: Array,
    gap_lower: Array,
    lip_raise: Array,
) -> LipLines:
    """Return the lips' edges at x, -1 and 1 at the corners of the mouth."""
    square = x * x
    swell = np.maximum(1 - square, 0)
    bow = np.maximum(1 - square * (1 / 0.22**2), 0)
    raised = lip_raise * swell * (1 + 0.55 * square)
    upper_shape = swell * (0.90 + 1.2 * square * swell - 0.14 * bow)
    return LipLines(
        outer_upper=-(lip_upper + gap_upper) * upper_shape - raised,
        inner_upper=-gap_upper * swell - 0.35 * raised * (gap_upper > 0),
        inner_lower=gap_lower * swell,
        outer_lower=(lip_lower + gap_lower) * swell * (1 + 0.35 * square),
    )
