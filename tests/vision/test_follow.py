"""Faces that are followed near where they were, between searches of the whole picture."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")

import torch

from aurel.facs import AUSet
from aurel.output import AUOutput
from aurel.vision.face_detector import POINT_NAMES, Face, overlap, whole_image
from aurel.vision.face_predictor import FacePredictor
from aurel.vision.follow import SEARCH_SECONDS, FollowingPredictor
from aurel.vision.frame import Frame

WHITE = 250


class Blobs:
    """Finds white squares, and counts the pixels that it was given."""

    def __init__(self) -> None:
        self.searched: list[tuple[int, int]] = []

    def __call__(self, image: np.ndarray) -> list[Face]:
        from scipy import ndimage

        self.searched.append(image.shape[:2])
        labels, _ = ndimage.label(image[..., 0] > 128)
        faces = []
        for rows, columns in ndimage.find_objects(labels):
            left, top = float(columns.start), float(rows.start)
            width, height = columns.stop - left, rows.stop - top
            faces.append(
                Face(left, top, width, height, 0.0, 0.9, ((left, top),) * len(POINT_NAMES))
            )
        return sorted(faces, key=lambda face: face.x)


class NearBlobs(Blobs):
    """Finds the white square at a place without a search of the picture."""

    def near(self, image: np.ndarray, face: Face) -> Face | None:
        x, y = (round(value) for value in face.center)
        if image[y, x, 0] <= 128:
            return None
        return max(Blobs()(image), key=lambda found: overlap(face, found))


class Model(torch.nn.Module):
    aus = AUSet.of([1])

    def forward(self, images: torch.Tensor) -> AUOutput:
        return AUOutput(images.mean((1, 2, 3))[:, None], aus=self.aus)


def frame(index: int, *corners: tuple[int, int], side: int = 40) -> Frame:
    image = np.zeros((360, 640, 3), dtype=np.uint8)
    for left, top in corners:
        image[top : top + side, left : left + side] = WHITE
    return Frame(index, index / 25, image)


@pytest.fixture
def detector() -> Blobs:
    return Blobs()


@pytest.fixture
def following(detector: Blobs) -> FollowingPredictor:
    return FollowingPredictor(FacePredictor(Model(), 32, detector=detector))


def test_a_face_is_followed_in_pixels_of_the_whole_picture(
    following: FollowingPredictor, detector: Blobs
) -> None:
    for index in range(30):
        (face,) = following.find(frame(index, (100 + 4 * index, 50 + index))).faces
        assert (face.x, face.y, face.width) == (100 + 4 * index, 50 + index, 40)
        assert face.points == ((face.x, face.y),) * 5 and face.confidence == 0.9
    whole = detector.searched.count((360, 640))
    assert whole == -(-30 // (SEARCH_SECONDS * 25 + 0.75) // 1)
    assert max(rows for rows, _ in detector.searched if rows != 360) <= 80


def test_a_large_face_is_searched_in_a_shrunk_part(
    following: FollowingPredictor, detector: Blobs
) -> None:
    for index in range(3):
        (face,) = following.find(frame(index, (200, 60), side=170)).faces
        assert (face.x, face.y, face.width, face.height) == pytest.approx(
            (200, 60, 170, 170), abs=2
        )
    assert max(detector.searched[-1]) == 192


def test_a_face_that_jumps_is_searched_in_the_whole_picture(following: FollowingPredictor) -> None:
    following.find(frame(0, (100, 50)))
    (face,) = following.find(frame(1, (500, 300))).faces
    assert (face.x, face.y) == (500, 300)


def test_a_new_face_is_found_by_the_next_search(following: FollowingPredictor) -> None:
    counts = [len(following.find(frame(0, (100, 50))).faces)]
    counts += [len(following.find(frame(n, (100, 50), (400, 200))).faces) for n in range(1, 9)]
    assert counts[1] == 1 and counts[-1] == 2


def test_two_faces_never_become_one_twice(following: FollowingPredictor) -> None:
    following.find(frame(0, (100, 50), (160, 50)))
    for index in range(1, 6):
        faces = following.find(frame(index, (100 + 3 * index, 50), (160 - 2 * index, 50))).faces
        assert len({(face.x, face.y) for face in faces}) == len(faces)


def test_a_face_whose_place_another_takes_is_searched_in_the_whole_picture(
    following: FollowingPredictor,
) -> None:
    for index, corners in enumerate(([(100, 50), (142, 50)], [(30, 50), (121, 50)])):
        faces = following.find(frame(index, *corners)).faces
        assert [(face.x, face.y) for face in faces] == corners


@pytest.mark.parametrize("missed", [3, 7])
def test_a_face_that_one_search_misses_is_found_in_the_next_frame(missed: int) -> None:
    """The search that misses it is due after 7 frames, or the place of the face is empty."""
    detector = NearBlobs()
    following = FollowingPredictor(FacePredictor(Model(), 32, detector=detector))
    both = (100, 50), (400, 200)
    counts = [
        len(following.find(frame(index, *both[: 1 if index == missed else 2])).faces)
        for index in range(missed + 4)
    ]
    assert counts == [2] * missed + [1] + [2] * 3
    assert detector.searched == [(360, 640)] * 3


def test_a_detector_that_finds_faces_near_known_ones_searches_no_squares() -> None:
    detector = NearBlobs()
    following = FollowingPredictor(FacePredictor(Model(), 32, detector=detector))
    for index in range(6):
        corners = [(20 + 100 * n + 2 * index, 50) for n in range(6)]
        faces = following.find(frame(index, *corners, side=90)).faces
        assert [(face.x, face.y) for face in faces] == corners
    assert detector.searched == [(360, 640)]
    following.find(frame(6))
    assert detector.searched == [(360, 640)] * 2


def test_face_crops_are_not_followed() -> None:
    following = FollowingPredictor(FacePredictor(Model(), 32, detector=whole_image))
    for index in range(3):
        (face,) = following.find(frame(index)).faces
        assert (face.width, face.height) == (360, 360)
