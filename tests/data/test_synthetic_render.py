"""The renderer: determinism, symmetry, and the points at which every unit is visible."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.data.synthetic.actions import COLUMN, SHOWN_AUS, Actions
from aurel.data.synthetic.arrays import join, rows
from aurel.data.synthetic.capture import (
    NUMBERS,
    Capture,
    capture_conditions,
    face_to_image,
    image_to_face,
    to_pixels,
)
from aurel.data.synthetic.evidence import evidence_points
from aurel.data.synthetic.faces import render
from aurel.data.synthetic.geometry import face_shape
from aurel.data.synthetic.identity import Identity, person
from aurel.data.synthetic.landmarks import MIRROR_68, TO_49
from aurel.data.synthetic.occluders import KINDS, ZONES, Occluders, hidden_units, sample_occluders
from aurel.data.synthetic.occluders import NUMBERS as OCCLUDER_NUMBERS
from aurel.facs import FLIP_49, LANDMARKS_68_TO_49

SIZE = 96


def people(count: int) -> Identity:
    return join([person(0, subject) for subject in range(count)])


def still(count: int) -> Capture:
    """Return conditions of frontal faces in even light, without noise and blur."""
    return capture_conditions(np.full((count, NUMBERS), 0.5), 0.0)


def at_rest(count: int) -> np.ndarray:
    return np.zeros((count, len(SHOWN_AUS), 2), np.float32)


def acting(count: int, *aus: int) -> np.ndarray:
    actions = at_rest(count)
    for au in aus:
        actions[:, COLUMN[au]] = 1
    return actions


def test_a_face_does_not_depend_on_its_neighbors() -> None:
    rng = np.random.default_rng(0)
    who, count = people(12), 12
    actions = rng.random((count, len(SHOWN_AUS), 2)).astype(np.float32)
    capture = capture_conditions(rng.random((count, NUMBERS)))
    occluders = sample_occluders(rng.random((count, OCCLUDER_NUMBERS)), 0.8)
    together = render(who, actions, capture, occluders, 64, chunk=12)
    alone = render(who, actions, capture, occluders, 64, chunk=1)
    np.testing.assert_array_equal(together.images, alone.images)
    order = rng.permutation(count)
    mixed = render(
        rows(who, order), actions[order], rows(capture, order), rows(occluders, order), 64, chunk=5
    )
    np.testing.assert_array_equal(mixed.images, together.images[order])
    np.testing.assert_array_equal(mixed.landmarks, together.landmarks[order])


@pytest.mark.parametrize("size", [33, 64, 131])
def test_any_size(size: int) -> None:
    faces = render(people(2), at_rest(2), still(2), size=size)
    assert faces.images.shape == (2, 3, size, size)
    scaled = (render(people(2), at_rest(2), still(2), size=66).landmarks + 0.5) * size / 66 - 0.5
    np.testing.assert_allclose(faces.landmarks, scaled, atol=1e-3)


def test_face_and_image_coordinates_are_inverse() -> None:
    rng = np.random.default_rng(2)
    capture = capture_conditions(rng.random((5, NUMBERS)))
    axis = np.linspace(-0.9, 0.9, 7, dtype=np.float32)
    u, v = image_to_face(axis[None, None, :], axis[None, :, None], capture)
    points = np.stack([u, v], -1).reshape(5, 49, 2).astype(np.float64)
    back = face_to_image(points, capture).reshape(5, 7, 7, 2)
    np.testing.assert_allclose(
        back[..., 0], np.broadcast_to(axis[None, None], (5, 7, 7)), atol=1e-5
    )
    np.testing.assert_allclose(
        back[..., 1], np.broadcast_to(axis[None, :, None], (5, 7, 7)), atol=1e-5
    )


def mirrored(capture: Capture) -> Capture:
    flipped = {"roll", "shift_x", "shear", "yaw", "gaze_x", "light_x", "background_tilt_x"}
    return Capture(
        **{
            name: -value if name in flipped else value
            for name, value in vars(capture).items()
        }
    )  # fmt: skip


def test_a_mirrored_face_has_mirrored_landmarks_and_pixels() -> None:
    rng = np.random.default_rng(4)
    who, count = people(6), 6
    actions = (rng.random((count, len(SHOWN_AUS), 2)) * 0.8).astype(np.float32)
    capture = capture_conditions(rng.random((count, NUMBERS)))
    plain = {name: value for name, value in vars(capture).items() if name not in ("noise", "blur")}
    capture = Capture(**plain, noise=0 * capture.roll, blur=0 * capture.roll)
    other = Identity(**{**vars(who), "asymmetry": -who.asymmetry, "hair_part": -who.hair_part})
    first = render(who, actions, capture, size=SIZE)
    second = render(other, actions[..., ::-1], mirrored(capture), size=SIZE)
    x, y = second.landmarks[:, MIRROR_68].transpose(2, 0, 1)
    np.testing.assert_allclose(SIZE - 1 - x, first.landmarks[..., 0], atol=2e-3)
    np.testing.assert_allclose(y, first.landmarks[..., 1], atol=2e-3)
    difference = first.images.astype(int) - second.images[..., ::-1]
    # Textures do not mirror; shapes do.
    assert np.median(np.abs(difference)) <= 3
    assert (np.abs(difference) > 40).mean() < 0.03


def test_landmark_tables_agree_with_facs() -> None:
    assert tuple(TO_49) == LANDMARKS_68_TO_49
    assert sorted(MIRROR_68) == list(range(68))
    index_of = {point: index for index, point in enumerate(TO_49)}
    assert tuple(index_of[MIRROR_68[point]] for point in TO_49) == FLIP_49


# Movements in FACS, as (68-point landmarks, axis, sign); y increases downwards.
MOVEMENTS = {
    1: ([21, 22], 1, -1),
    2: ([17, 18, 25, 26], 1, -1),
    4: ([20, 21, 22, 23], 1, 1),
    5: ([37, 38, 43, 44], 1, -1),
    6: ([40, 41, 46, 47], 1, -1),
    7: ([40, 41, 46, 47], 1, -1),
    9: ([31, 32, 34, 35], 1, -1),
    10: ([50, 51, 52], 1, -1),
    12: ([48, 54], 1, -1),
    15: ([48, 54], 1, 1),
    17: ([57, 8], 1, -1),
    20: ([54], 0, 1),
    23: ([54], 0, -1),
    24: ([56, 57, 58], 1, -1),
    25: ([65, 66, 67], 1, 1),
    26: ([7, 8, 9], 1, 1),
    43: ([37, 38, 43, 44], 1, 1),
}


@pytest.mark.parametrize("au", MOVEMENTS)
def test_a_unit_moves_its_landmarks(au: int) -> None:
    points, axis, sign = MOVEMENTS[au]
    who = people(8)
    before = render(who, at_rest(8), still(8), size=SIZE).face_landmarks
    after = render(who, acting(8, au), still(8), size=SIZE).face_landmarks
    motion = sign * (after - before)[:, points, axis]
    assert motion.min() > 0.008
    half = render(who, 0.5 * acting(8, au), still(8), size=SIZE).face_landmarks
    assert (sign * (half - before)[:, points, axis] > 0).all()


@pytest.mark.parametrize("au", SHOWN_AUS)
def test_a_unit_changes_the_pixels_at_its_evidence(au: int) -> None:
    who = people(6)
    shape = face_shape(who, Actions(acting(6, au)), still(6))
    points = evidence_points(who, shape)[SHOWN_AUS.index(au)]
    x, y = to_pixels(points, still(6), SIZE).round().astype(int).transpose(2, 0, 1)
    rest = render(who, at_rest(6), still(6), size=SIZE).images.astype(int)
    shown = render(who, acting(6, au), still(6), size=SIZE).images.astype(int)
    change = np.abs(shown - rest).max(1)
    face = np.arange(6)[:, None]
    near = np.max(
        [change[face, y + dy, x + dx] for dy in range(-4, 5) for dx in range(-4, 5)], axis=0
    )
    assert near.min() > 8
    far = change.copy()
    for dy in range(-30, 31):
        for dx in range(-40, 41):
            far[face, (y + dy).clip(0, SIZE - 1), (x + dx).clip(0, SIZE - 1)] = 0
    assert np.median(far) == 0


def test_one_sided_units_move_one_side() -> None:
    actions = at_rest(3)
    actions[:, COLUMN[12], 1] = 1
    who = people(3)
    motion = (
        render(who, actions, still(3)).face_landmarks
        - render(who, at_rest(3), still(3)).face_landmarks
    )
    assert (motion[:, 54, 1] < -0.05).all()
    np.testing.assert_array_equal(motion[:, 48], 0)


def test_brow_landmarks_lie_on_dark_brows_and_eye_corners_beside_the_white() -> None:
    who = person(0, 21)
    who = Identity(
        **{**vars(who), "skin_tone": 0 * who.age, "hair_color": 0 * who.age, "fringe": 0 * who.age}
    )
    faces = render(who, at_rest(1), still(1), size=192)
    gray = faces.images[0].mean(0)
    for point in (18, 19, 20, 23, 24, 25):
        x, y = faces.landmarks[0, point].round().astype(int)
        assert gray[y, x] < gray[y - 12, x] - 40


def test_hidden_means_that_all_evidence_is_covered() -> None:
    rng = np.random.default_rng(9)
    count = 60
    who = rows(people(10), rng.integers(10, size=count))
    actions = at_rest(count)
    capture = still(count)
    occluders = sample_occluders(rng.random((count, OCCLUDER_NUMBERS)), 1.0)
    shape = face_shape(who, Actions(actions), capture)
    hidden = hidden_units(occluders, who, shape)
    open_face = render(who, actions, capture, size=SIZE).images
    covered = (render(who, actions, capture, occluders, SIZE).images != open_face).any(1)
    face = np.arange(count)[:, None]
    wrong = 0
    for column, points in enumerate(evidence_points(who, shape)):
        x, y = to_pixels(points, capture, SIZE).round().astype(int).transpose(2, 0, 1)
        seen_hidden = covered[face, y, x].all(1)
        wrong += (seen_hidden != hidden[:, column]).sum()
    # A point may lie within half a pixel of an occluder's edge.
    assert wrong / hidden.size < 0.03
    assert 0.15 < hidden.mean() < 0.6


@pytest.mark.parametrize(
    ("zone", "units"),
    [
        ("inner brows", {1, 4}),
        ("eyes", {5, 6, 7, 43}),
        ("mouth corners", {12, 14, 15, 20}),
        ("mouth", {10, 23, 24, 25, 26}),
        ("chin", {17}),
        ("outer brows", {2}),
    ],
)
def test_a_patch_hides_the_units_of_its_zone(zone: str, units: set[int]) -> None:
    count = 20
    who = people(count)
    zones = np.zeros((count, len(ZONES)), bool)
    zones[:, ZONES.index(zone)] = True
    kind = np.full(count, KINDS.index("patches"))
    form = np.full((count, 5), 0.5, np.float32)
    occluders = Occluders(kind, np.zeros((count, 3), np.float32), form, zones)
    shape = face_shape(who, Actions(at_rest(count)), still(count))
    hidden = hidden_units(occluders, who, shape)
    share = {au: hidden[:, column].mean() for column, au in enumerate(SHOWN_AUS)}
    assert {au for au, value in share.items() if value > 0.5} == units


def test_without_occluders_all_units_are_visible() -> None:
    occluders = sample_occluders(np.random.default_rng(0).random((9, OCCLUDER_NUMBERS)), 0.0)
    who = people(9)
    shape = face_shape(who, Actions(at_rest(9)), still(9))
    assert not hidden_units(occluders, who, shape).any()
    open_face = render(who, at_rest(9), still(9)).images
    np.testing.assert_array_equal(render(who, at_rest(9), still(9), occluders).images, open_face)


def test_people_differ_and_are_deterministic() -> None:
    first, second = (render(people(5), at_rest(5), still(5), size=64).images for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for one in range(5):
        for other in range(one):
            assert np.abs(first[one].astype(int) - first[other]).mean() > 5


def test_actions_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 18, 2\), got \(2, 12\)"):
        render(people(2), np.zeros((2, 12), np.float32), still(2))
