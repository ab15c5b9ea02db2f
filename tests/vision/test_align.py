"""Align faces whose points are known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")

from aurel.vision.align import ALIGNMENTS, Alignment, align_face, chip_matrix, similarity
from aurel.vision.crop import crop_face
from aurel.vision.face_detector import Face
from aurel.vision.warp import move

ANGLES = (0, 7, -30, 45, 90, -90, 135, 180, -179)
TEMPLATES = [a for a in ALIGNMENTS.values() if a.points]
FRONTAL = np.array(ALIGNMENTS["crop"].points)


def place(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = math.radians(angle)
    matrix = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return points @ matrix.T + shift


def face_at(points: np.ndarray) -> Face:
    x, y = points.mean(axis=0)
    pairs = tuple((float(a), float(b)) for a, b in points)
    return Face(float(x) - 20, float(y) - 25, 40, 50, points=pairs)


@pytest.mark.parametrize("alignment", TEMPLATES, ids=lambda a: a.name)
@pytest.mark.parametrize("angle", ANGLES)
def test_points_of_any_tilt_and_size_come_to_the_template(
    alignment: Alignment, angle: float
) -> None:
    template = np.array(alignment.points)
    for scale in (0.5, 30, 4000):
        points = place(template, angle, scale, (500, -70))
        found = move(chip_matrix(points, alignment, 256), points)
        np.testing.assert_allclose(found, 256 * template, atol=0.3 if alignment.square else 1e-6)


def test_the_fit_is_the_least_squares_of_another_solver() -> None:
    rng = np.random.default_rng(0)
    points, target = rng.normal(size=(2, 5, 2)) * 10 + 3
    weights = np.array([1.0, 2, 0.5, 4, 3])
    rows, values = [], []
    for (x, y), (u, v), w in zip(points, target, np.sqrt(weights), strict=True):
        rows += [[w * x, -w * y, w, 0], [w * y, w * x, 0, w]]
        values += [w * u, w * v]
    (a, b, c, d), *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    np.testing.assert_allclose(similarity(points, target, weights), [[a, -b, c], [b, a, d]])


@pytest.mark.parametrize("missing", [(0,), (2, 3), (1, 2, 4)])
def test_points_that_are_missing_are_left_out(missing: tuple[int, ...]) -> None:
    points = place(FRONTAL, 50, 200, (9, 9))
    whole = similarity(points, FRONTAL)
    points[list(missing)] = np.nan
    np.testing.assert_allclose(similarity(points, FRONTAL), whole, atol=1e-9)


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_points_without_extent_raise(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="points must have at least two different"):
        similarity(points, FRONTAL)


@pytest.mark.parametrize("points", [None, ((3.0, 3.0),) * 5, ((math.nan, math.nan),) * 5])
def test_a_face_without_points_is_cut_along_its_box(
    points: tuple[tuple[float, float], ...] | None,
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    face = Face(40, 20, 30, 36, angle=20, points=points)
    np.testing.assert_array_equal(
        align_face(image, face, size=32).image, crop_face(image, face, 32)
    )
    wider = crop_face(image, face, 32, margin=0.3)
    np.testing.assert_array_equal(align_face(image, face, size=32, margin=0.3).image, wider)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_matrix_finds_the_pixels_of_the_picture_in_the_chip(angle: float) -> None:
    points = place(FRONTAL, angle, 300, (200, 200))
    points += (400, 400) - points.mean(axis=0)
    image = np.zeros((800, 800, 3), dtype=np.uint8)
    for channel, (x, y) in enumerate(points[:3]):
        rows, columns = np.mgrid[:800, :800] + 0.5
        image[np.hypot(columns - x, rows - y) < 9, channel] = 255
    chip = align_face(image, face_at(points), "crop", 96, chip=112)
    expected = move(chip.matrix, points)[:3]
    np.testing.assert_allclose(expected, 112 * FRONTAL[:3] - 8, atol=1e-6)
    for channel, point in enumerate(expected):
        weight = chip.image[..., channel].astype(float)
        rows, columns = np.mgrid[:96, :96] + 0.5
        middle = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        assert np.abs(middle - point).max() < 0.6


def test_the_square_of_jaanet_is_level_and_2_9_times_the_box_of_the_points() -> None:
    tall = FRONTAL * (0.7, 1.1)
    for points in (place(FRONTAL, 33, 100, (50, 80)), place(tall, -120, 100, (50, 80))):
        chip = move(chip_matrix(points, ALIGNMENTS["jaanet"], 200), points)
        low, high = chip.min(axis=0), chip.max(axis=0)
        assert chip[0, 1] == pytest.approx(chip[1, 1])
        assert (high - low).max() == pytest.approx(200 / 2.9)
        np.testing.assert_allclose((low + high) / 2, [100, 100])


def test_turned_heads_keep_their_eyes_level_and_profiles_their_size() -> None:
    crop = ALIGNMENTS["crop"]
    for narrow, least, most in ((0.9, 0.97, 1.0), (0.3, 0.4, 0.8)):
        points = place(FRONTAL * (narrow, 1), 25, 100, (0, 0))
        chip = move(chip_matrix(points, crop, 100), points)
        distance = np.hypot(*(chip[1] - chip[0])) / (100 * (FRONTAL[1, 0] - FRONTAL[0, 0]))
        assert least <= distance <= most
        assert abs(chip[1, 1] - chip[0, 1]) < 1e-6


def test_large_faces_are_averaged_and_not_sampled() -> None:
    image = np.zeros((1200, 1200, 3), dtype=np.uint8)
    image[::2] = 255
    points = place(FRONTAL, 12, 1000, (150, 50))
    chip = align_face(image, face_at(points), size=64).image
    assert np.abs(chip[8:-8, 8:-8].astype(int) - 127).max() < 25


def test_a_box_is_stretched_to_the_square() -> None:
    image = np.zeros((60, 90, 3), dtype=np.uint8)
    image[10:50, 20:40] = 255
    chip = align_face(image, Face(20, 10, 20, 40), "box", 32)
    assert chip.image[1:-1, 1:-1].min() == 255
    np.testing.assert_allclose(
        move(chip.matrix, np.array([[20, 10], [40, 50]])), [[0, 0], [32, 32]]
    )
    wide = align_face(image, Face(20, 10, 20, 40), "wide_box", 24).image
    assert wide[:, 0].max() == 0 and wide[3:-3, 3:-3].min() == 255


def test_faces_at_the_border_and_tiny_faces_give_a_chip() -> None:
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    tiny = place(FRONTAL, 10, 4, (30, 20))
    corner = place(FRONTAL, 80, 40, (10, -15))
    for points in (tiny, corner):
        face = face_at(points)
        inside = np.clip(face.center, 0, (60, 50))
        face = replace(face, x=inside[0] - 20, y=inside[1] - 25)
        assert align_face(image[:, ::-1], face, size=40).image.shape == (40, 40, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": "dlib"}, "alignment must be one of crop, jaanet"),
        ({"size": 0}, "size must be at least 1"),
        ({"chip": 0}, "chip must be at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_face(np.zeros((9, 9, 3), np.uint8), Face(1, 1, 5, 5), **options)  # type: ignore[arg-type]
