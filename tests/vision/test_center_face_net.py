"""Decode maps that were written by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")

from aurel.vision.center_face_net import FoundBoxes, decode, without_overlaps


def maps(height: int = 10, width: int = 20) -> list[np.ndarray]:
    return [np.zeros((n, height, width), dtype=np.float32) for n in (1, 2, 2, 10)]


def test_a_cell_is_decoded_to_its_box_and_points() -> None:
    heat, scale, offset, points = maps()
    heat[0, 3, 7] = 0.9
    scale[:, 3, 7] = np.log([8, 5])  # height 32, width 20
    offset[:, 3, 7] = (0.25, -0.5)  # y, x
    points[:, 3, 7] = [0.25, 0.25, 0.25, 0.75, 0.5, 0.5, 0.75, 0.25, 0.75, 1.0]
    found = decode(heat, scale, offset, points, 0.5)
    x, y = 4 * (7 - 0.5 + 0.5) - 10, 4 * (3 + 0.25 + 0.5) - 16
    np.testing.assert_allclose(found.boxes, [[x, y, 20, 32]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.9], rtol=1e-6)
    places = [(0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (1.0, 0.75)]
    expected = [(x + 20 * a, y + 32 * b) for a, b in places]
    np.testing.assert_allclose(found.points, [expected], rtol=1e-6)


def test_nothing_above_the_threshold_gives_empty_arrays() -> None:
    found = decode(*maps(), threshold=0.1)
    assert found.boxes.shape == (0, 4) and found.points.shape == (0, 5, 2)


def test_of_neighboring_cells_the_most_confident_stays() -> None:
    heat, scale, offset, points = maps()
    scale[:] = np.log(6)
    heat[0, 4, 3:6] = (0.6, 0.8, 0.7)
    heat[0, 4, 15] = 0.55
    found = decode(heat, scale, offset, points, 0.5)
    np.testing.assert_allclose(found.scores, [0.8, 0.55], rtol=1e-6)


def test_boxes_of_a_turned_picture_are_those_of_the_picture() -> None:
    picture = np.zeros((40, 60))
    picture[5:12, 20:50] = 1  # left 20, top 5, width 30, height 7
    rows, columns = np.nonzero(np.rot90(picture))
    left, top = columns.min(), rows.min()
    box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
    corners = np.array([[left, top], [left, top + box[3]]])  # of the turned box
    found = FoundBoxes(np.array([box], dtype=float), np.array([0.9]), corners[None].astype(float))
    back = found.turned(60)
    assert back.boxes.tolist() == [[20, 5, 30, 7]]
    assert back.points.tolist() == [[[50, 5], [20, 5]]]


def test_overlaps_below_the_limit_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [5.5, 0, 10, 10]], dtype=float)
    # Intersection over union with the first: 50 / 150 and 45 / 155.
    assert without_overlaps(boxes[:2], np.array([0.5, 0.9])).tolist() == [1]
    assert without_overlaps(boxes[[0, 2]], np.array([0.5, 0.9])).tolist() == [1, 0]


def test_searches_of_two_scales_are_merged() -> None:
    points = np.zeros((1, 5, 2))
    fine = FoundBoxes(np.array([[0.0, 0, 40, 40]]), np.array([0.6]), points)
    coarse = FoundBoxes(np.array([[0.0, 0, 11, 11]]), np.array([0.9]), points + 1)
    both = fine.distinct(coarse.scaled(np.array([4.0, 4.0])))
    np.testing.assert_allclose(both.boxes, [[0, 0, 44, 44]])
    np.testing.assert_allclose(both.points, points + 4)
