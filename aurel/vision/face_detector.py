"""Find faces: the interface of detectors, and one that needs OpenCV only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2

POINT_NAMES = ("RightEye", "LeftEye", "NoseTip", "MouthRight", "MouthLeft")
"""The five points of a face in their order; right and left are those of the person."""


@dataclass(frozen=True)
class Face:
    """The box of a face, in pixels of the whole picture.

    Args:
        x, y: top left corner of the box before its rotation.
        width, height: size of the box.
        angle: rotation of the box about its center, in degrees, clockwise in the picture.
        confidence: in [0, 1], or None if the detector gives none.
        points: five points (x, y) in the order of `POINT_NAMES`, or None if there are none.
    """

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0
    confidence: float | None = None
    points: tuple[tuple[float, float], ...] | None = None

    @property
    def center(self) -> tuple[float, float]:
        """Center of the box, (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    def corners(self) -> NDArray[np.float64]:
        """Return the corners of the rotated box, (4, 2), clockwise from the top left one."""
        half = np.array([self.width, self.height]) / 2
        turn = np.deg2rad(self.angle)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return np.array(self.center) + (signs * half) @ rotation


class FaceDetector(Protocol):
    """A callable that finds the faces in a picture."""

    def __call__(self, image: RGBImage) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB picture, left to right."""
        ...


@runtime_checkable
class NearFaceDetector(FaceDetector, Protocol):
    """A detector that also finds a face near a known one, at a fraction of the cost of a search."""

    def near(self, image: RGBImage, face: Face) -> Face | None:
        """Return the face near a face of a similar picture, or None if there is none."""
        ...


class HaarFaceDetector:
    """Detector of frontal faces by the cascade of Haar features that comes with OpenCV 4.

    The picture is shrunk to `max_side`, so that the cost does not grow with its resolution. If no
    upright face is found, faces tilted by `tilt` degrees to the left or right are searched, with
    1.5 times `min_neighbors`.

    Args:
        max_side: longest side in pixels of the picture that is searched.
        min_face: smallest face, as a fraction of the shorter side of the picture.
        min_neighbors: number of overlapping windows that must detect a face. On the photographs
            that it was chosen on, values from 3 to 6 find every frontal face and nothing else.
        tilt: angle of tilted faces in degrees; 0 searches upright faces only.

    Raises:
        ImportError: OpenCV has no Haar cascades, as since version 5.
        ValueError: an option is out of range.

    Source: Viola and Jones, "Rapid object detection using a boosted cascade of simple features",
    CVPR 2001; cascade `haarcascade_frontalface_alt2.xml`.
    """

    def __init__(
        self,
        max_side: int = 640,
        min_face: float = 0.06,
        min_neighbors: int = 4,
        tilt: float = 30.0,
    ) -> None:
        if max_side < 20:
            raise ValueError(f"max_side must be at least 20 pixels, got {max_side}")
        if not 0 < min_face <= 1:
            raise ValueError(f"min_face must be in (0, 1], got {min_face}")
        if min_neighbors < 1:
            raise ValueError(f"min_neighbors must be at least 1, got {min_neighbors}")
        self.max_side = max_side
        self.min_face = min_face
        self.min_neighbors = min_neighbors
        self.tilt = tilt
        cascade = _cascade_file()
        self._cascade = cv2.CascadeClassifier(str(cascade))

    def __call__(self, image: RGBImage) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB picture, left to right."""
        check_rgb(image)
        height, width = image.shape[:2]
        scale = min(1.0, self.max_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        faces = self._search(gray, 0.0, self.min_neighbors)
        if not faces and self.tilt:
            for angle in (self.tilt, -self.tilt):
                faces += self._search(gray, angle, (3 * self.min_neighbors + 1) // 2)
        to_full = (width / size[0], height / size[1])
        faces = [_scaled(face, *to_full) for face in faces]
        # The search for tilted faces can find faces in the repeated border outside the picture.
        kept = without_overlaps(face for face in faces if is_inside(face, width, height))
        return sorted(kept, key=lambda face: face.x)

    def _search(self, gray: NDArray[np.uint8], angle: float, min_neighbors: int) -> list[Face]:
        height, width = gray.shape
        back = np.eye(2, 3)
        if angle:
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
            back = cv2.invertAffineTransform(turn)
            gray = cv2.warpAffine(gray, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        smallest = max(20, round(self.min_face * min(height, width)))
        boxes = self._cascade.detectMultiScale(
            gray, scaleFactor=1.1, minNeighbors=min_neighbors, minSize=(smallest, smallest)
        )
        faces = []
        for x, y, box_width, box_height in np.asarray(boxes, dtype=float).reshape(-1, 4):
            center = back @ (x + box_width / 2, y + box_height / 2, 1.0)
            corner = center - (box_width / 2, box_height / 2)
            faces.append(Face(corner[0], corner[1], box_width, box_height, angle))
        return faces


def whole_image(image: RGBImage) -> list[Face]:
    """Return the largest centered square, as the detector for pictures that are face crops."""
    check_rgb(image)
    height, width = image.shape[:2]
    side = min(height, width)
    return [Face((width - side) / 2, (height - side) / 2, side, side)]


def _cascade_file() -> Path:
    data = getattr(cv2, "data", None)
    path = Path(data.haarcascades if data else "") / "haarcascade_frontalface_alt2.xml"
    if data is None or not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise ImportError(
            f"OpenCV {cv2.__version__} has no Haar cascades; "
            "they come with version 4: pip install 'aurel-au[vision]'"
        )
    return path


def is_inside(face: Face, width: int, height: int) -> bool:
    """Return whether the center of a face lies in the picture."""
    x, y = face.center
    return 0 <= x <= width and 0 <= y <= height


def _scaled(face: Face, x_scale: float, y_scale: float) -> Face:
    return Face(
        face.x * x_scale,
        face.y * y_scale,
        face.width * x_scale,
        face.height * y_scale,
        face.angle,
    )


def without_overlaps(faces: Iterable[Face]) -> list[Face]:
    """Return the faces whose center is not inside a larger face."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.width):
        distances = [np.subtract(face.center, other.center) for other in kept]
        if all(np.hypot(*d) > other.width / 2 for d, other in zip(distances, kept, strict=True)):
            kept.append(face)
    return kept


def overlap(a: Face, b: Face) -> float:
    """Return the intersection over union of two boxes, from 0 to 1; rotation is ignored."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(width, 0) * max(height, 0)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union > 0 else 0.0
