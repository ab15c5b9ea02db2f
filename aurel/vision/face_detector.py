"""Finding faces: the interface, and a detector that needs no download."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2


@dataclass(frozen=True)
class Face:
    """Where a face is, in pixels of the whole picture.

    Args:
        x, y: top left corner of the box before it is turned.
        width, height: size of the box.
        angle: how far the box is turned about its centre, degrees, clockwise as seen.
    """

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    def corners(self) -> NDArray[np.float64]:
        """Return the corners of the turned box, (4, 2), from the top left on clockwise."""
        half = np.array([self.width, self.height]) / 2
        turn = np.deg2rad(self.angle)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return np.array(self.centre) + (signs * half) @ rotation


class FaceDetector(Protocol):
    """Anything that finds faces in a picture; pass your own wherever one is taken."""

    def __call__(self, image: RGBImage) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB picture, left to right."""
        ...


class HaarFaceDetector:
    """Frontal faces by the boosted cascade of Haar features that comes with OpenCV 4.

    The picture is shrunk to `max_side`, so the cost does not grow with its resolution. Where no
    upright face is found, faces tilted by `tilt` degrees to either side are looked for, with
    half as much evidence again asked of them.

    Args:
        max_side: longest side, in pixels, of the picture that is searched.
        min_face: smallest face, as a part of the picture's shorter side.
        min_neighbors: how many overlapping windows must agree on a face. Of 1 to 10, 3 to 6 find
            every frontal face and nothing else in the photographs this was chosen on.
        tilt: how far tilted heads are turned, degrees; 0 looks for upright faces alone.

    Raises:
        ImportError: OpenCV has no cascades, as from version 5 on.
        ValueError: a number out of range.

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
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        faces = self._search(grey, 0.0, self.min_neighbors)
        if not faces and self.tilt:
            for angle in (self.tilt, -self.tilt):
                faces += self._search(grey, angle, (3 * self.min_neighbors + 1) // 2)
        to_full = (width / size[0], height / size[1])
        faces = [_scaled(face, *to_full) for face in faces]
        # The tilted search also sees the repeated border, beyond the picture.
        kept = _without_overlaps(face for face in faces if _is_inside(face, width, height))
        return sorted(kept, key=lambda face: face.x)

    def _search(self, grey: NDArray[np.uint8], angle: float, min_neighbors: int) -> list[Face]:
        height, width = grey.shape
        back = np.eye(2, 3)
        if angle:
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
            back = cv2.invertAffineTransform(turn)
            grey = cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        smallest = max(20, round(self.min_face * min(height, width)))
        boxes = self._cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=min_neighbors, minSize=(smallest, smallest)
        )
        faces = []
        for x, y, box_width, box_height in np.asarray(boxes, dtype=float).reshape(-1, 4):
            centre = back @ (x + box_width / 2, y + box_height / 2, 1.0)
            corner = centre - (box_width / 2, box_height / 2)
            faces.append(Face(corner[0], corner[1], box_width, box_height, angle))
        return faces


def whole_image(image: RGBImage) -> list[Face]:
    """Detector for pictures that are face crops already: their largest centred square."""
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


def _is_inside(face: Face, width: int, height: int) -> bool:
    x, y = face.centre
    return 0 <= x <= width and 0 <= y <= height


def _scaled(face: Face, x_scale: float, y_scale: float) -> Face:
    return Face(
        face.x * x_scale,
        face.y * y_scale,
        face.width * x_scale,
        face.height * y_scale,
        face.angle,
    )


def _without_overlaps(faces: Iterable[Face]) -> list[Face]:
    """Leave out a face whose centre lies in a larger one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.width):
        distances = [np.subtract(face.centre, other.centre) for other in kept]
        if all(np.hypot(*d) > other.width / 2 for d, other in zip(distances, kept, strict=True)):
            kept.append(face)
    return kept
