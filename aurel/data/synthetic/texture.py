"""Two constant tables of noise: one for skin and hair, one for the camera."""

from __future__ import annotations

from functools import cache

import numpy as np

from aurel.data.synthetic.arrays import Array

TILE = 256
SENSOR = 512
_OCTAVES = ((8, 0.30), (16, 0.25), (32, 0.20), (64, 0.15), (128, 0.12), (256, 0.10))


@cache
def skin_tile() -> Array:
    """Return periodic smooth noise of many scales, (256, 256), of standard deviation about 0.5."""
    rng = np.random.default_rng(7)
    tile = np.zeros((TILE, TILE), np.float32)
    for cells, weight in _OCTAVES:
        grid = rng.random((cells, cells), dtype=np.float32) - np.float32(0.5)
        tile += weight * _enlarge(_enlarge(grid, TILE // cells).T, TILE // cells).T
    return np.ascontiguousarray(tile * np.float32(4.7))


@cache
def sensor_noise() -> Array:
    """Return independent triangular noise of standard deviation 1, (512, 512)."""
    rng = np.random.default_rng(11)
    shape = (SENSOR, SENSOR)
    difference = rng.random(shape, dtype=np.float32) - rng.random(shape, dtype=np.float32)
    return difference * np.float32(6**0.5)


def look_up(rows: Array, columns: Array) -> Array:
    """Return the skin tile at float positions, truncated and modulo its size."""
    wrap = TILE - 1
    return skin_tile()[rows.astype(np.int32) & wrap, columns.astype(np.int32) & wrap]


def _enlarge(grid: Array, factor: int) -> Array:
    """Interpolate the rows of a periodic grid smoothly."""
    if factor == 1:
        return grid
    t = (np.arange(factor, dtype=np.float32) + np.float32(0.5)) / np.float32(factor)
    t = (t * t * (3 - 2 * t))[None, :, None]
    following = np.roll(grid, -1, 0)
    return (grid[:, None] * (1 - t) + following[:, None] * t).reshape(-1, grid.shape[1])
