"""The interface of landmark detectors, and the points that alignment takes from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aurel.facs.landmarks import LANDMARKS_68_TO_49, LEFT_EYE, RIGHT_EYE
from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage

NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT = 13, 31, 37
"""Landmarks of the 49-point scheme; left means left in the image."""


class LandmarkDetector(Protocol):
    """A callable that finds the landmarks of a face."""

    def __call__(self, image: RGBImage, face: Face) -> NDArray[np.float64]:
        """Return landmarks (P, 2), x and y in pixels of an (H, W, 3) uint8 RGB picture.

        Integers are the edges of pixels, as in the box of a face.
        """
        ...


def detector_points(image: RGBImage, face: Face) -> NDArray[np.float64]:
    """Return the five points that the detector has found, NaN if it has found none."""
    return np.full((5, 2), np.nan) if face.points is None else np.array(face.points, dtype=float)


def to_49(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Return the 49 of 68 landmarks (68, 2): without the contour and the inner mouth corners.

    Raises:
        ValueError: not 68 landmarks.
    """
    landmarks = np.asarray(landmarks, dtype=float)
    if landmarks.shape != (68, 2):
        raise ValueError(f"landmarks must be (68, 2), got {landmarks.shape}")
    return landmarks[list(LANDMARKS_68_TO_49)]


def five_points(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Return the points (5, 2) in the order of `POINT_NAMES` from 5, 49 or 68 landmarks.

    An eye is the mean of its outline.

    Raises:
        ValueError: another number of landmarks.
    """
    landmarks = np.asarray(landmarks, dtype=float)
    if landmarks.shape == (5, 2):
        return landmarks
    if landmarks.shape == (68, 2):
        landmarks = to_49(landmarks)
    if landmarks.shape != (49, 2):
        raise ValueError(f"landmarks must be (5, 2), (49, 2) or (68, 2), got {landmarks.shape}")
    eyes = [landmarks[list(outline)].mean(axis=0) for outline in (LEFT_EYE, RIGHT_EYE)]
    return np.array([*eyes, *landmarks[[NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT]]])


def with_landmarks(face: Face, landmarks: ArrayLike) -> Face:
    """Return a face whose points are those of 5, 49 or 68 landmarks."""
    points = five_points(landmarks)
    return replace(face, points=tuple((float(x), float(y)) for x, y in points))
