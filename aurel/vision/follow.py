"""Follow the faces of a video: search the whole picture now and then, and near them in between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from aurel.vision import face_detector
from aurel.vision.face_detector import Face, FaceDetector, NearFaceDetector, overlap
from aurel.vision.face_predictor import FacePredictor, FoundFaces
from aurel.vision.frame import Frame
from aurel.vision.image import RGBImage
from aurel.vision.opencv import cv2
from aurel.vision.tracks import OVERLAP

SEARCH_SECONDS = 0.25
"""Time between searches of the whole picture: a further face may be found this much late."""

SURROUNDINGS = 2.0
"""Side of the square that is searched for a face, as a multiple of its box."""

SEARCHED_SIDE = 192
"""A larger square is shrunk to this side, in which a face has about 96 pixels."""


class FollowingDetector:
    """Finds the faces in the frames of one video at a fraction of the cost of every whole picture.

    The whole picture is searched every `SEARCH_SECONDS`; when the frame before has no face, one
    that is not found again, or two that are found at one place; and once more after a search that
    found fewer faces than the frame before. Otherwise each face of the frame before is searched
    near its place: by the method `near` of a `NearFaceDetector`, else in a square around it, unless
    all squares are larger than the picture. The results depend on the frames up to this one only. A
    face that is the whole picture (`whole_image`) is not followed.

    Args:
        search: finds the faces in whole pictures and near the faces of the frame before.

    Attributes:
        time: seconds from the start of the video to the next frame.
    """

    def __init__(self, search: FaceDetector) -> None:
        self.time = 0.0
        self._search = search
        self._searched = -np.inf
        self._faces: list[Face] = []

    def __call__(self, image: RGBImage) -> list[Face]:
        """Return the faces of the next frame, left to right."""
        if self._search is face_detector.whole_image:
            return self._search(image)
        due = self.time - self._searched >= SEARCH_SECONDS
        followed = None if due else self._followed(image)
        if followed is None:
            followed = self._search(image)
            fewer = len(followed) < len(self._faces)
            self._searched = -np.inf if fewer else self.time
        self._faces = followed
        return followed

    def _followed(self, image: RGBImage) -> list[Face] | None:
        """Return the faces of the frame before where they are now.

        None if there were none, or one is not found, or two are found at one place.
        """
        if not self._faces:
            return None
        find = self._finder(image)
        if find is None:
            return None
        found: list[Face] = []
        for before in self._faces:
            face = find(image, before)
            if face is None or overlap(before, face) < OVERLAP:
                return None
            if any(overlap(other, face) >= OVERLAP for other in found):
                return None
            found.append(face)
        return sorted(found, key=lambda face: face.x)

    def _finder(self, image: RGBImage) -> Callable[[RGBImage, Face], Face | None] | None:
        """Return what finds a face near a face; None if searching the whole picture takes less."""
        if isinstance(self._search, NearFaceDetector):
            return self._search.near
        searched = sum(min(_side(face), SEARCHED_SIDE) ** 2 for face in self._faces)
        if searched > image.shape[0] * image.shape[1]:
            return None
        return partial(_near, self._search)


class FollowingPredictor:
    """Finds the faces in the frames of one video by a `FollowingDetector`.

    Args:
        predictor: its detector is the one that searches.
    """

    def __init__(self, predictor: FacePredictor) -> None:
        self._detector = FollowingDetector(predictor.detector)
        self._predictor = copy.copy(predictor)
        self._predictor.detector = self._detector

    def find(self, frame: Frame) -> FoundFaces:
        """Return the faces of the next frame; see `FacePredictor.find`."""
        self._detector.time = frame.time
        return self._predictor.find(frame.image)


def _side(face: Face) -> float:
    return SURROUNDINGS * max(face.width, face.height)


def _near(search: FaceDetector, image: RGBImage, face: Face) -> Face | None:
    """Return the face of a square around a face that overlaps it most."""
    height, width = image.shape[:2]
    x, y = face.center
    side = _side(face)
    left, top = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    part = image[top : min(height, round(y + side / 2)), left : min(width, round(x + side / 2))]
    if part.size == 0:
        return None
    scale = max(1.0, max(part.shape[:2]) / SEARCHED_SIDE)
    if scale > 1:
        size = tuple(max(1, round(length / scale)) for length in part.shape[1::-1])
        shrunk = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    else:
        shrunk = np.ascontiguousarray(part)
    ratio = part.shape[1] / shrunk.shape[1], part.shape[0] / shrunk.shape[0]
    candidates = [_moved(found, left, top, *ratio) for found in search(shrunk)]
    return max(candidates, key=lambda candidate: overlap(face, candidate), default=None)


def _moved(face: Face, left: float, top: float, across: float, down: float) -> Face:
    return replace(
        face,
        x=left + face.x * across,
        y=top + face.y * down,
        width=face.width * across,
        height=face.height * down,
        points=face.points and tuple((left + x * across, top + y * down) for x, y in face.points),
    )
