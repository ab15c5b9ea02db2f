"""Numbers of people in a video: across gaps, crossings and cuts."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("cv2")

from aurel.vision.face_detector import Face
from aurel.vision.tracks import FaceTracker


def face(x: float, y: float = 0, side: float = 40) -> Face:
    return Face(x, y, side, side)


def test_numbers_follow_faces_whatever_their_order_in_a_frame() -> None:
    tracker = FaceTracker()
    assert tracker.update([face(0), face(100)], 0.0) == [0, 1]
    assert tracker.update([face(102), face(3)], 0.04) == [1, 0]
    assert tracker.update([face(300), face(104), face(5)], 0.08) == [2, 1, 0]


def test_a_face_that_is_found_again_nearby_within_a_second_keeps_its_number() -> None:
    tracker = FaceTracker()
    assert tracker.update([face(0)], 0.0) == [0]
    assert tracker.update([], 0.5) == []
    assert tracker.update([face(35)], 0.9) == [0]
    assert tracker.update([], 1.5) == []
    assert tracker.update([face(35)], 2.0) == [1]


def test_a_face_in_frames_that_are_seconds_apart_keeps_its_number() -> None:
    """As with every 100th frame of a video."""
    tracker = FaceTracker()
    assert tracker.update([face(0), face(100)], 0.0) == [0, 1]
    assert tracker.update([face(10), face(90)], 4.0) == [0, 1]
    assert tracker.update([face(90)], 8.0) == [1]
    assert tracker.update([face(10), face(90)], 12.0) == [2, 1]


def test_a_face_far_away_or_of_another_size_is_another_person() -> None:
    tracker = FaceTracker()
    tracker.update([face(0)], 0.0)
    assert tracker.update([face(60)], 0.1) == [1]
    assert tracker.update([face(0, side=100)], 0.2) == [2]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_person_is_never_in_a_frame_twice(order: tuple[int, ...]) -> None:
    tracker = FaceTracker()
    assert tracker.update([face(0)], 0.0) == [0]
    near = [face(2), face(8), face(12)]
    numbers = tracker.update([near[index] for index in order], 0.04)
    assert sorted(numbers) == [0, 1, 2]
    assert numbers[order.index(0)] == 0


def test_overlap_counts_more_than_distance() -> None:
    tracker = FaceTracker()
    tracker.update([face(0), face(60)], 0.0)
    # One face has moved half its side, the other one jumped next to it.
    assert tracker.update([face(15), face(45)], 0.04) == [0, 1]
