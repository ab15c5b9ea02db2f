"""Align faces: move their landmarks to the template of the data that a model was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MEAN_FACE = (
    (0.3435, 0.3929), (0.6565, 0.3929), (0.5, 0.6), (0.35, 0.74), (0.65, 0.74),
)


def similarity(
    points: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the rotation, scale and shift (2, 3) that moves points to a target, by least squares."""
    z, w = (np.asarray(p, dtype=float) @ (1, 1j) for p in (points, target))
    share = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=float)
    share = share / share.sum()
    z_mean, w_mean = share @ z, share @ w
    a = (share * (z - z_mean).conj()) @ (w - w_mean) / (share @ np.abs(z - z_mean) ** 2)
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
