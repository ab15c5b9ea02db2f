"""Detect faces of every tilt and size in real photographs, and none where there is none."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from aurel.vision.center_face import (
    CenterFace,
    angle_between,
    center_face_file,
    distinct,
    tilt,
)
from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage
from aurel.vision.inputs import Video, read_photo
from aurel.vision.opencv import cv2
from aurel.vision.warp import inverse, move, square_to_picture, warp_square

if center_face_file() is None:
    pytest.skip("CenterFace is not installed", allow_module_level=True)

FIVE_FACES = [(263, 118), (363, 300), (474, 264), (580, 370), (738, 358)]


@pytest.fixture(scope="module")
def detect() -> CenterFace:
    return CenterFace()


@pytest.fixture
def group(shared: Path) -> RGBImage:
    return read_photo(shared / "data" / "real" / "multi_face.jpg")


@pytest.fixture(scope="module")
def astronaut() -> RGBImage:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut())


def turned(image: RGBImage, angle: float) -> tuple[RGBImage, np.ndarray]:
    """Return a picture turned clockwise, and the matrix that moves its points there."""
    height, width = image.shape[:2]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    size = np.abs([[cos, sin], [sin, cos]]) @ (width, height)
    rotation = np.array([[cos, -sin], [sin, cos]])
    matrix = np.column_stack((rotation, size / 2 - rotation @ (width / 2, height / 2)))
    shift = matrix[:, 2] + rotation @ (0.5, 0.5) - 0.5
    centers = np.column_stack((rotation, shift))
    return cv2.warpAffine(image, centers, tuple(np.ceil(size).astype(int).tolist())), matrix


def centers(faces: list[Face]) -> np.ndarray:
    return np.array([face.center for face in faces])


@pytest.mark.parametrize("angle", [0, 45, 90, -90, 150, 180])
def test_every_face_of_a_group_at_every_tilt(
    group: RGBImage, detect: CenterFace, angle: float
) -> None:
    image, matrix = turned(group, angle)
    faces = detect(image)
    assert len(faces) == 5
    found = move(inverse(matrix), centers(faces))
    distances = np.hypot(*(found[:, None] - np.array(FIVE_FACES)[None]).transpose(2, 0, 1))
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3, 4] and distances.min(axis=1).max() < 15
    for face in faces:
        assert abs((face.angle - angle + 180) % 360 - 180) < 20
        assert face.confidence is not None and 0.7 < face.confidence <= 1


def test_an_upright_face_hides_no_tilted_one(astronaut: RGBImage, detect: CenterFace) -> None:
    head = astronaut[0:240, 100:340]
    row = np.hstack([np.rot90(head, k) for k in range(4)])
    angles = [face.angle for face in detect(row)]
    assert len(angles) == 4
    np.testing.assert_allclose([(a + 180) % 360 for a in angles], [184, 94, 4, 274], atol=6)


def test_points_are_the_eyes_nose_and_mouth_and_follow_a_turn(
    astronaut: RGBImage, detect: CenterFace
) -> None:
    (upright,) = detect(astronaut)
    expected = [(204, 102), (247, 104), (223, 126), (204, 141), (243, 142)]  # by eye
    assert np.abs(np.array(upright.points) - expected).max() < 6
    for angle in (40, 130, -100):
        image, matrix = turned(astronaut, angle)
        (face,) = detect(image)
        back = move(inverse(matrix), np.array(face.points))
        assert np.abs(back - np.array(upright.points)).max() < 4
        assert face.angle == pytest.approx(tilt(np.array(face.points)))


def test_a_mirror_image_mirrors_the_points(astronaut: RGBImage, detect: CenterFace) -> None:
    (face,), (mirrored,) = detect(astronaut), detect(astronaut[:, ::-1])
    x, y = np.array(face.points)[[1, 0, 2, 4, 3]].T
    assert np.abs(np.array(mirrored.points) - np.column_stack((512 - x, y))).max() < 2


@pytest.mark.parametrize("size", [(4000, 3000), (1920, 1080), (6000, 500)])
def test_faces_of_a_fortieth_of_the_longest_side(
    astronaut: RGBImage, detect: CenterFace, size: tuple[int, int]
) -> None:
    small = cv2.resize(
        astronaut[20:220, 120:320], None, fx=(side := max(size) / 40) / 85, fy=side / 85
    )
    picture = np.full((size[1], size[0], 3), 128, dtype=np.uint8)
    places = [(x, y) for x in (0.2, 0.5, 0.8) for y in (0.3, 0.6)]
    for x, y in places:
        top, left = int(y * size[1]), int(x * size[0])
        part = small[: size[1] - top]
        picture[top : top + len(part), left : left + part.shape[1]] = part
    faces = detect(picture)
    whole = [p for p in places if p[1] * size[1] + small.shape[0] <= size[1]]
    assert len(faces) >= len(whole)
    assert all(0.5 * side < face.height < 2 * side for face in faces)


def test_small_faces_that_are_tilted(shared: Path, detect: CenterFace) -> None:
    """Faces of a fiftieth of the longest side of a large picture, tilted by about 90 degrees."""
    with Video(shared / "data" / "real" / "WolfgangLanger_Pexels.mp4") as video:
        head = next(iter(video)).image
    angles = [-110, -100, -95, -90, -80, -70, 70, 80, 90, 95, 100, 110]
    side, step = 165, 180
    picture = np.full((3000, 4000, 3), 60, dtype=np.uint8)
    for number, angle in enumerate(angles):
        x, y = 1000 + step * (number % 4), 1000 + step * (number // 4)
        cut = square_to_picture((433, 197), 2.2 * 300, -angle, side)
        picture[y : y + side, x : x + side] = warp_square(head, cut, side)
    places = (centers(detect(picture)) - 1000 - side / 2) / step
    assert sorted(map(tuple, places.round().astype(int).tolist())) == [
        (column, row) for column in range(4) for row in range(3)
    ]
    assert np.abs(places - places.round()).max() < 0.2


@pytest.mark.parametrize("share", [0.5, 0.9, 1.2])
def test_a_face_that_fills_a_large_picture_is_one_face(
    astronaut: RGBImage, detect: CenterFace, share: float
) -> None:
    side = int(110 / share)
    top, left = 125 - side // 2, 224 - side // 2
    picture = cv2.resize(astronaut[top : top + side, left : left + side], (1000, 1000))
    (face,) = detect(picture)
    assert abs(face.angle) < 10


def test_dark_noisy_and_gray_pictures(astronaut: RGBImage, detect: CenterFace) -> None:
    rng = np.random.default_rng(0)
    dark = (astronaut * 0.25).astype(np.uint8)
    noisy = np.clip(astronaut + rng.normal(0, 25, astronaut.shape), 0, 255).astype(np.uint8)
    gray = np.repeat(astronaut.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    for image in (dark, noisy, gray):
        (face,) = detect(image)
        assert np.hypot(*np.subtract(face.center, (224, 125))) < 15


@pytest.mark.parametrize(
    "name", ["coffee", "chelsea", "rocket", "moon", "brick", "grass", "text", "retina", "coins"]
)
def test_pictures_without_people_have_no_face(detect: CenterFace, name: str) -> None:
    image = getattr(pytest.importorskip("skimage.data"), name)()
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    assert detect(np.ascontiguousarray(image[..., :3])) == []


@pytest.mark.parametrize(("name", "expected"), [("single_face.mp4", 1), ("no_face.mp4", 0)])
def test_videos(shared: Path, detect: CenterFace, name: str, expected: int) -> None:
    with Video(shared / "data" / "real" / name, every=24) as video:
        assert {len(detect(frame.image)) for frame in video} == {expected}


@pytest.mark.parametrize("tilted", [0, 90, 180])
def test_a_face_near_a_known_one_is_measured_as_in_a_search(
    astronaut: RGBImage, detect: CenterFace, tilted: int
) -> None:
    image, _ = turned(astronaut, tilted)
    (before,) = detect(image)
    for angle, shift in ((0, 10), (12, 0), (-20, -10)):
        moved, _ = turned(np.roll(image, shift, axis=(0, 1)), angle)
        (expected,) = detect(moved)
        known = replace(before, angle=before.angle + angle / 2)
        known = replace(known, x=expected.x + before.width / 6, y=expected.y - before.height / 8)
        face = detect.near(moved, known)
        assert face is not None
        assert np.abs(np.array(face.points) - np.array(expected.points)).max() < 3
        assert abs(angle_between(face, expected)) < 2
        assert face.width == pytest.approx(expected.width, rel=0.08)


def test_no_face_is_near_a_place_without_one(astronaut: RGBImage, detect: CenterFace) -> None:
    (face,) = detect(astronaut)
    for other in (
        replace(face, x=400.0, y=400.0),
        replace(face, angle=90.0),
        replace(face, width=face.width / 6, height=face.height / 6),
        replace(face, x=-300.0),
    ):
        assert detect.near(astronaut, other) is None
    assert CenterFace(min_confidence=0.99).near(astronaut, face) is None


def test_a_half_covered_face(shared: Path, detect: CenterFace) -> None:
    (face,) = detect(read_photo(shared / "data" / "real" / "Image_with_alpha.png"))
    assert np.hypot(*np.subtract(face.center, (770, 425))) < 40 and -30 < face.angle < -12


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (31, 33), (200, 200)])
@pytest.mark.parametrize("kind", ["black", "noise"])
def test_small_and_narrow_pictures(detect: CenterFace, size: tuple[int, int], kind: str) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    assert detect(image) == []


def test_views_copies_and_threads_give_the_same(astronaut: RGBImage, detect: CenterFace) -> None:
    expected = detect(astronaut)
    wide = np.zeros((512, 1024, 3), dtype=np.uint8)
    wide[:, ::2] = astronaut
    assert detect(wide[:, ::2]) == expected
    assert pickle.loads(pickle.dumps(detect))(astronaut) == expected
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(detect, [astronaut] * 3)) == [expected] * 3


def test_limits_leave_faces_out(group: RGBImage) -> None:
    group = np.ascontiguousarray(group[::2, ::2])
    heights = sorted(max(f.width, f.height) for f in CenterFace()(group))
    limit = (heights[1] + heights[2]) / 2 / min(group.shape[:2])
    assert len(CenterFace(min_face=limit)(group)) == 3
    assert CenterFace(min_confidence=0.99)(group) == []


def test_of_faces_at_one_place_the_most_confident_stays() -> None:
    a, b = Face(0, 0, 10, 10, confidence=0.6), Face(2, 1, 12, 12, confidence=0.9)
    c = Face(9, 0, 10, 10, confidence=0.5)
    assert distinct([a, b, c]) == [b, c]


@pytest.mark.parametrize("option", ["min_face", "min_confidence"])
@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        CenterFace(**{option: value})  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.onnx"):
        CenterFace(tmp_path / "nothing.onnx")
