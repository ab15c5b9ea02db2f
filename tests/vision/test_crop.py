"""Compare crops with the plane that they are cut from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cv2")

from aurel.vision.crop import crop_face
from aurel.vision.face_detector import Face

SIZE = 240


def plane() -> np.ndarray:
    """Return a picture whose red is x, green is y and blue is their mean, in pixels."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack((x, y, (x + y) / 2), axis=2).round().astype(np.uint8)


def expected(face: Face, size: int, margin: float) -> np.ndarray:
    """Return (x, y) of the pixel of the plane under each pixel of the crop."""
    side = max(face.width, face.height) * (1 + 2 * margin)
    turn = np.deg2rad(face.angle)
    v, u = np.mgrid[:size, :size]
    u, v = (u + 0.5) / size - 0.5, (v + 0.5) / size - 0.5
    x = face.center[0] + side * (u * np.cos(turn) - v * np.sin(turn)) - 0.5
    y = face.center[1] + side * (u * np.sin(turn) + v * np.cos(turn)) - 0.5
    return np.stack((x, y), axis=2)


@settings(max_examples=60, deadline=None)
@given(
    center=st.tuples(st.floats(0, SIZE), st.floats(0, SIZE)),
    width=st.floats(20, 120),
    ratio=st.floats(0.5, 2),
    angle=st.sampled_from([0.0, -30.0, 30.0, 90.0]),
    size=st.integers(3, 90),
    margin=st.sampled_from([-0.0625, 0.0, 0.22]),
)
def test_a_crop_shows_what_its_box_covers(
    center: tuple[float, float],
    width: float,
    ratio: float,
    angle: float,
    size: int,
    margin: float,
) -> None:
    height = width * ratio
    face = Face(center[0] - width / 2, center[1] - height / 2, width, height, angle)
    crop = crop_face(plane(), face, size, margin)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    where = expected(face, size, margin)
    # Averaging is exact only if the whole area of a pixel is inside.
    reach = max(width, height) * 1.5 / size + 3
    inside = ((where > reach) & (where < SIZE - 1 - reach)).all(2)
    assert np.abs(crop[..., :2].astype(float) - where)[inside].max(initial=0) <= 2


def test_the_whole_picture_at_its_own_size_is_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert np.array_equal(crop_face(picture, Face(0, 0, 50, 50), 50, margin=0), picture)


def test_border_pixels_are_repeated_outside() -> None:
    crop = crop_face(plane(), Face(-50, 100, 100, 100), 100, margin=0)
    left = crop[:, :49]
    assert (left[..., 0] == 0).all()
    assert np.abs(left[..., 1].astype(int) - np.arange(100, 200)[:, None]).max() <= 1


def test_detail_is_averaged_when_a_large_face_is_shrunk() -> None:
    stripes = np.zeros((600, 600, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    crop = crop_face(stripes, Face(50, 50, 500, 500), 50, margin=0)
    assert np.abs(crop.astype(int) - 128).max() < 16


@pytest.mark.parametrize(
    ("face", "size", "message"),
    [
        (Face(0, 0, 0, 0), 10, "positive size"),
        (Face(300, 300, 10, 10), 10, "must lie in"),
        (Face(0, 0, 10, 10), 0, "size must be"),
    ],
)
def test_bad_arguments_are_named(face: Face, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crop_face(plane(), face, size)
