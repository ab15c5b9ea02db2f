"""Detect faces in real photographs, and test the geometry of their boxes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cv2")

from aurel.vision import face_detector
from aurel.vision.face_detector import Face, HaarFaceDetector, whole_image
from aurel.vision.image import RGBImage
from aurel.vision.inputs import Video, read_photo
from aurel.vision.opencv import cv2

FIVE_FACES = [(263, 111), (363, 294), (478, 267), (574, 383), (731, 367)]


@pytest.fixture(scope="module")
def detect() -> HaarFaceDetector:
    return HaarFaceDetector()


@pytest.fixture
def real(shared: Path) -> Path:
    return shared / "data" / "real"


def centers(faces: list[Face]) -> np.ndarray:
    return np.array([face.center for face in faces])


def test_every_face_of_a_group_is_found_and_nothing_else(
    real: Path, detect: HaarFaceDetector
) -> None:
    faces = detect(read_photo(real / "multi_face.jpg"))
    assert len(faces) == 5
    assert np.abs(centers(faces) - FIVE_FACES).max() < 25
    assert all(face.angle == 0 for face in faces)


def test_resolution_does_not_change_what_is_found(real: Path, detect: HaarFaceDetector) -> None:
    photo = read_photo(real / "multi_face.jpg")
    large = cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    faces = detect(large)
    assert len(faces) == 5
    assert np.abs(centers(faces) / 4 - FIVE_FACES).max() < 25


def test_gray_photo(real: Path, detect: HaarFaceDetector) -> None:
    photo = read_photo(real / "single_face.jpg")
    gray = np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    (face,) = detect(gray)
    assert np.hypot(*(np.array(face.center) - (280, 270))) < 20


def test_a_tilted_and_half_covered_face_is_found_with_its_tilt(
    real: Path, detect: HaarFaceDetector
) -> None:
    photo = read_photo(real / "Image_with_alpha.png")
    (face,) = detect(photo)
    assert face.angle == -30
    assert np.hypot(*(np.array(face.center) - (750, 420))) < 50
    assert HaarFaceDetector(tilt=0)(photo) == []


def test_a_face_in_the_border_that_the_tilted_search_repeats_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, outside = Face(30, 20, 20, 20, 30.0), Face(-25, 20, 40, 40, 30.0)
    detect = HaarFaceDetector()
    monkeypatch.setattr(
        detect, "_search", lambda gray, angle, _: [outside, inside] if angle == 30 else []
    )
    assert detect(np.zeros((60, 80, 3), dtype=np.uint8)) == [inside]


def test_an_opencv_without_cascades_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_detector, "cv2", SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(ImportError, match=r"OpenCV 5\.0\.0 .*pip install 'aurel-au\[vision\]'"):
        HaarFaceDetector()


@pytest.mark.parametrize(("name", "expected"), [("single_face.mp4", 1), ("no_face.mp4", 0)])
def test_videos(real: Path, detect: HaarFaceDetector, name: str, expected: int) -> None:
    with Video(real / name, every=12) as video:
        assert {len(detect(frame.image)) for frame in video} == {expected}


@pytest.mark.parametrize("size", [(1, 1), (8, 700), (700, 8), (20, 20)])
def test_a_picture_too_small_for_a_face_has_none(
    detect: HaarFaceDetector, size: tuple[int, int]
) -> None:
    assert detect(np.zeros((*size, 3), dtype=np.uint8)) == []


def test_corners_turn_clockwise_as_seen() -> None:
    face = Face(10, 20, 4, 2, angle=90)
    assert np.allclose(face.corners(), [(13, 19), (13, 23), (11, 23), (11, 19)])
    assert np.allclose(Face(10, 20, 4, 2).corners(), [(10, 20), (14, 20), (14, 22), (10, 22)])


def test_whole_image_is_the_centered_square() -> None:
    assert whole_image(np.zeros((30, 50, 3), dtype=np.uint8)) == [Face(10, 0, 30, 30)]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
    ids=["gray", "alpha", "float", "empty"],
)
def test_only_8_bit_rgb_is_taken(detect: HaarFaceDetector, image: RGBImage) -> None:
    with pytest.raises(ValueError, match="image must be"):
        detect(image)


@pytest.mark.parametrize(
    ("option", "value"), [("max_side", 5), ("min_face", 0.0), ("min_neighbors", 0)]
)
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        HaarFaceDetector(**{option: value})  # type: ignore[arg-type]
