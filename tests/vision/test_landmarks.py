"""Find 68 landmarks, and take the points of the alignment from them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

from aurel.facs.landmarks import FLIP_49
from aurel.vision.align import align_face
from aurel.vision.center_face import CenterFace, center_face_file
from aurel.vision.face_detector import Face
from aurel.vision.face_mesh import MESH_TO_68, FaceMesh, face_mesh_file
from aurel.vision.image import RGBImage
from aurel.vision.inputs import read_photo
from aurel.vision.landmarks import detector_points, five_points, to_49, with_landmarks
from aurel.vision.warp import move


def test_five_points_of_68_and_49() -> None:
    points = np.zeros((68, 2))
    points[36:42] = [(1, 2), (3, 0), (5, 0), (7, 2), (5, 4), (3, 4)]
    points[42:48] = points[36:42] + (20, 1)
    points[30], points[48], points[54] = (14, 9), (6, 15), (22, 16)
    expected = [(4, 2), (24, 3), (14, 9), (6, 15), (22, 16)]
    np.testing.assert_allclose(five_points(points), expected)
    np.testing.assert_allclose(five_points(to_49(points)), expected)
    face = with_landmarks(Face(0, 0, 30, 30, confidence=0.7), points)
    assert face.points == tuple(expected) and face.confidence == 0.7
    np.testing.assert_allclose(detector_points(np.zeros((1, 1, 3), np.uint8), face), expected)
    assert np.isnan(detector_points(np.zeros((1, 1, 3), np.uint8), Face(0, 0, 1, 1))).all()


@pytest.mark.parametrize("shape", [(66, 2), (49, 3), (68,)])
def test_other_numbers_of_landmarks_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="landmarks must be"):
        five_points(np.zeros(shape))


def test_the_points_of_the_mesh_are_different_ones() -> None:
    assert len(MESH_TO_68) == len(set(MESH_TO_68)) == 68 and max(MESH_TO_68) < 468


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    pytest.importorskip("ai_edge_litert")
    if face_mesh_file() is None or center_face_file() is None:
        pytest.skip("the face mesh or CenterFace is not installed")
    return FaceMesh()


@pytest.fixture
def photo(shared: Path) -> RGBImage:
    return read_photo(shared / "data" / "real" / "single_face.jpg")


def test_the_mesh_agrees_with_the_detector_at_any_tilt(mesh: FaceMesh, photo: RGBImage) -> None:
    for quarter in range(4):
        image = np.ascontiguousarray(np.rot90(photo, quarter))
        (face,) = CenterFace()(image)
        landmarks = mesh(image, face)
        assert landmarks.shape == (68, 2)
        eyes = np.array(face.points)[:2]
        distance = np.hypot(*(eyes[1] - eyes[0]))
        away = np.hypot(*(five_points(landmarks) - np.array(face.points)).T) / distance
        assert away[:3].max() < 0.15 and away.max() < 0.25


def test_a_mirror_image_mirrors_the_landmarks(mesh: FaceMesh, photo: RGBImage) -> None:
    (face,) = CenterFace()(photo)
    width = photo.shape[1]
    there = replace(face, x=width - face.x - face.width, angle=-face.angle)
    plain = to_49(mesh(photo, face))
    mirrored = to_49(mesh(np.ascontiguousarray(photo[:, ::-1]), there))[list(FLIP_49)]
    away = np.abs(np.column_stack((width - mirrored[:, 0], mirrored[:, 1])) - plain)
    assert away.mean() < 0.02 * face.width


def test_aligned_by_the_mesh_the_eyes_are_level(mesh: FaceMesh, photo: RGBImage) -> None:
    (face,) = CenterFace()(photo)
    landmarks = mesh(photo, face)
    chip = align_face(photo, with_landmarks(face, landmarks), "crop", 200)
    right, left = five_points(move(chip.matrix, landmarks))[:2]
    assert abs(left[1] - right[1]) < 1 and left[0] - right[0] == pytest.approx(55.2, rel=0.03)


def test_copies_and_missing_files(mesh: FaceMesh, photo: RGBImage, tmp_path: Path) -> None:
    face = Face(186, 146, 182, 243)
    again = pickle.loads(pickle.dumps(mesh))
    np.testing.assert_array_equal(again(photo, face), mesh(photo, face))
    with pytest.raises(FileNotFoundError, match="none.tflite"):
        FaceMesh(tmp_path / "none.tflite")
