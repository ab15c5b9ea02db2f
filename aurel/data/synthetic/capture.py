"""Conditions of a picture (pose, gaze, light, camera), and the map from face to image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from aurel.data.synthetic.arrays import (
    Array,
    DoubleArray,
    make_table,
    numbers_needed,
    triangular,
    uniform,
)

YAW_SHIFT = np.float32(0.115)
PITCH_SHIFT = np.float32(0.075)


@dataclass(frozen=True)
class Capture:
    """A row per picture. Yaw and pitch of 1 are about ten degrees; roll is in radians."""

    roll: Array = triangular(0.16)
    scale: Array = triangular(0.09, 1.0)
    shift_x: Array = triangular(0.07)
    shift_y: Array = triangular(0.06)
    shear: Array = triangular(0.05)
    yaw: Array = triangular(1.0)
    pitch: Array = triangular(0.9)
    gaze_x: Array = triangular(0.6)
    gaze_y: Array = triangular(0.35)
    light_x: Array = uniform(-0.75, 0.75)
    light_y: Array = uniform(-0.80, -0.10)
    ambient: Array = uniform(0.40, 0.60)
    gain: Array = triangular(0.22, 1.0)
    contrast: Array = triangular(0.15, 1.0)
    tint: Array = triangular(0.07)
    noise: Array = uniform(0.006, 0.018)
    blur: Array = uniform(-0.7, 0.7)
    noise_x: Array = uniform(0, 511.99)
    noise_y: Array = uniform(0, 511.99)
    background_r: Array = uniform(0.15, 0.85)
    background_g: Array = uniform(0.15, 0.85)
    background_b: Array = uniform(0.15, 0.85)
    background_tilt_x: Array = uniform(-0.22, 0.22)
    background_tilt_y: Array = uniform(-0.18, 0.18)


_VARIED = (
    "roll", "scale", "shift_x", "shift_y", "shear", "yaw", "pitch", "gaze_x", "gaze_y", "light_x",
    "gain", "contrast", "tint",
)  # fmt: skip
_REST = {"gain": 1.0, "contrast": 1.0, "scale": 1.0}


def capture_conditions(numbers: DoubleArray, strength: float = 1.0) -> Capture:
    """Return the conditions of n pictures from uniform numbers.

    Args:
        numbers: uniform random numbers, (n, NUMBERS).
        strength: strength of the variation in pose, light and camera; 0 is frontal, evenly lit and
            sharp.
    """
    table = make_table(Capture, numbers)
    columns = {column.name: getattr(table, column.name) for column in fields(table)}
    for name in _VARIED:
        rest = np.float32(_REST.get(name, 0.0))
        columns[name] = rest + (columns[name] - rest) * np.float32(strength)
    columns["light_y"] = -0.45 + (columns["light_y"] + 0.45) * np.float32(strength)
    columns["noise"] = columns["noise"] * np.float32(strength)
    columns["blur"] = np.maximum(columns["blur"], 0) * np.float32(strength)
    return Capture(**columns)


NUMBERS = numbers_needed(Capture)


def rotation(capture: Capture) -> tuple[DoubleArray, DoubleArray]:
    """Return cosine and sine of the roll, computed without library functions that may differ."""
    half = capture.roll.astype(np.float64) / 2
    return (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)


def image_to_face(x: Array, y: Array, capture: Capture) -> tuple[Array, Array]:
    """Map image coordinates in [-1, 1] (1, W), (H, 1) to face coordinates (n, H, W).

    When the head turns, the center of the face moves further than its outline.
    """
    cosine, sine = rotation(capture)
    scale = capture.scale.astype(np.float64)
    c = (cosine / scale).astype(np.float32)[:, None, None]
    s = (sine / scale).astype(np.float32)[:, None, None]
    x = x - capture.shift_x[:, None, None]
    y = y - capture.shift_y[:, None, None]
    u = c * x + s * y
    v = c * y - s * x
    u -= capture.shear[:, None, None] * v
    u += (YAW_SHIFT * capture.yaw)[:, None, None] * (1 - 0.75 * u * u)
    v += (PITCH_SHIFT * capture.pitch)[:, None, None] * (1 - 0.5 * v * v)
    return u, v


def face_to_image(points: DoubleArray, capture: Capture) -> DoubleArray:
    """Map face coordinates (n, P, 2) to image coordinates in [-1, 1], exactly inverse."""
    x = points[..., 0].astype(np.float64)
    y = points[..., 1].astype(np.float64)
    u = _undo_turn(x, (YAW_SHIFT * capture.yaw).astype(np.float64)[:, None], 0.75)
    v = _undo_turn(y, (PITCH_SHIFT * capture.pitch).astype(np.float64)[:, None], 0.5)
    u = u + capture.shear[:, None] * v
    cosine, sine = rotation(capture)
    scale = capture.scale.astype(np.float64)
    c, s = (cosine * scale)[:, None], (sine * scale)[:, None]
    return np.stack(
        [c * u - s * v + capture.shift_x[:, None], s * u + c * v + capture.shift_y[:, None]], -1
    )


def to_pixels(points: DoubleArray, capture: Capture, size: int) -> Array:
    """Map face coordinates (n, P, 2) to pixels (x, y); the center of the first pixel is (0, 0)."""
    return ((face_to_image(points, capture) + 1) * (size / 2) - 0.5).astype(np.float32)


def _undo_turn(x: DoubleArray, turn: DoubleArray, bend: float) -> DoubleArray:
    """Solve x = u + turn (1 - bend u^2) for u."""
    return 2 * (x - turn) / (1 + np.sqrt(1 - 4 * bend * turn * (x - turn)))
