"""The landmarks that owners send with their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurel.data.text import numbered_lines
from aurel.facs import LANDMARKS_66_TO_49, LANDMARKS_68_TO_49

_TO_49 = {49: tuple(range(49)), 66: LANDMARKS_66_TO_49, 68: LANDMARKS_68_TO_49}


def read_points(file: Path) -> Tensor:
    """Read the landmarks of one frame: the variable ``pts`` of a .mat file, or a text file.

    Args:
        file: 49, 66 or 68 points, x and y of one a row.

    Returns:
        (49, 2) float32.

    Raises:
        ValueError: another file, or another number of points.
    """
    if file.suffix.lower() == ".mat":
        return forty_nine(_variable(file, "pts"), file)
    rows = []
    for number, line in numbered_lines(file):
        try:
            rows.append([float(word) for word in line.replace(",", " ").split()])
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}: coordinates must be numbers ({error})"
            ) from error
        if len(rows[-1]) != 2:
            raise ValueError(f"{file}, line {number}: a line must be x and y, got {line!r}")
    return forty_nine(np.array(rows, dtype=np.float32), file)


def read_tracked_points(file: Path) -> list[Tensor | None]:
    """Read the landmarks of a video of BP4D: the field ``pred`` of the variable ``fit``.

    Returns:
        For each frame (49, 2) float32, or None where the tracker found no face.

    Raises:
        ValueError: another file.
    """
    fit = _variable(file, "fit")
    if fit.dtype.names is None or "pred" not in fit.dtype.names:
        raise ValueError(f"{file} must hold the variable fit with the field pred, got {fit.dtype}")
    frames = (np.asarray(frame["pred"]) for frame in fit.ravel())
    return [None if points.size == 0 else forty_nine(points, file) for points in frames]


def forty_nine(points: np.ndarray, file: Path) -> Tensor:
    """Return 49, 66 or 68 points, (n, 2), as the 49 of them, float32."""
    points = np.asarray(points, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in _TO_49:
        raise ValueError(f"{file} must hold x and y of 49, 66 or 68 points, got {points.shape}")
    return torch.from_numpy(points[list(_TO_49[len(points)])])


def _variable(file: Path, name: str) -> Any:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(".mat files need scipy: pip install 'aurel-au[tables]'") from error
    try:
        content = loadmat(file)
    except NotImplementedError as error:
        raise ValueError(
            f"{file} must be a .mat file up to version 7, got 7.3: save it in MATLAB by save -v7"
        ) from error
    except Exception as error:  # of a damaged file scipy raises errors of many types
        raise ValueError(f"{file} cannot be read as a .mat file: {error}") from error
    if name not in content:
        names = ", ".join(key for key in content if not key.startswith("__")) or "none"
        raise ValueError(f"{file} must hold the variable {name}, got {names}")
    return content[name]
