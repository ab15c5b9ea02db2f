"""The camera: contrast, gain, tint, blur, noise, and rounding to eight bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.arrays import Array
from aurel.data.synthetic.capture import Capture
from aurel.data.synthetic.texture import SENSOR, sensor_noise


def photograph(picture: Array, capture: Capture) -> NDArray[np.uint8]:
    """Return colors (n, 3, S, S) as eight bits; `picture` is changed in place."""
    size = picture.shape[-1]
    blurred = np.flatnonzero(capture.blur > 0)
    for _ in range(max(1, round(size / 96))):
        for face in blurred:
            _soften(picture[face], capture.blur[face] * np.float32(0.25))
    one = np.ones_like(capture.tint)
    gain = np.stack([one + capture.tint, one, one - capture.tint], 1)
    picture *= (gain * (capture.gain * capture.contrast)[:, None])[:, :, None, None]
    offset = (1 - capture.contrast) * np.float32(0.45)
    pixels = np.arange(size)
    table = sensor_noise()
    for index, image in enumerate(picture):
        rows = (pixels + int(capture.noise_y[index])) % SENSOR
        columns = (pixels + int(capture.noise_x[index])) % SENSOR
        noise = table[rows[:, None], columns[None]] * capture.noise[index]
        noise += offset[index]
        image += noise
    np.maximum(picture, 0, out=picture)
    np.minimum(picture, 1, out=picture)
    picture *= 255
    picture += 0.5
    return picture.astype(np.uint8)


def _soften(image: Array, weight: np.float32) -> None:
    """Mix each pixel with its neighbors, (w, 1 - 2w, w) along rows, then along columns."""
    for axis in (-1, -2):
        padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis=axis)
        before = padded[..., :-2] if axis == -1 else padded[..., :-2, :]
        after = padded[..., 2:] if axis == -1 else padded[..., 2:, :]
        image += weight * (before + after - 2 * image)
