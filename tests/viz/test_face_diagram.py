"""Positions of AUs on the face diagram, and distances between nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from aurel.facs import ACTION_UNITS, AU_SETS, AUSet
from aurel.viz.face_diagram import anchors, spread


def test_every_au_of_facs_has_a_place_on_the_face() -> None:
    for points in anchors(AUSet.of(list(ACTION_UNITS))):
        for x, y in points:
            assert abs(x) < 1 and -1.3 < y < 1


def test_sides_mirror_each_other_and_the_persons_left_is_on_the_right() -> None:
    both, left, right = anchors(AUSet.of(["AU12", "AU12L", "AU12R"]))
    assert both == [*right, *left]
    assert left[0][0] == -right[0][0] > 0


def test_upper_aus_are_above_lower_ones() -> None:
    aus = AUSet.of(list(ACTION_UNITS))
    height = dict(zip(aus.numbers, (points[0][1] for points in anchors(aus)), strict=True))
    regions = dict(zip(aus.numbers, aus.regions(), strict=True))
    upper = [height[n] for n in aus.numbers if regions[n] == "upper"]
    lower = [height[n] for n in aus.numbers if regions[n] == "lower"]
    assert min(upper) > max(lower)


def test_an_unnamed_set_has_no_places() -> None:
    with pytest.raises(ValueError, match="unnamed"):
        anchors(AUSet.unnamed(3))


@pytest.mark.parametrize("name", AU_SETS)
def test_nodes_of_the_known_sets_do_not_overlap_and_stay_mirrored(name: str) -> None:
    true = anchors(AUSet.of(name))
    flat = [point for points in true for point in points]
    placed = spread(flat, 0.155)
    gaps = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + 9 * np.eye(len(placed))
    assert gaps.min() > 0.15
    assert np.abs(placed - flat).max() < 0.2
    if not any(AUSet.of(name).sides):
        mirrored = placed * (-1, 1)
        distance = np.linalg.norm(mirrored[:, None] - placed[None], axis=-1).min(1)
        assert distance.max() < 0.01


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), max_size=12))
def test_spread_parts_points_and_leaves_those_alone_that_are_apart(
    points: list[tuple[float, float]],
) -> None:
    placed = spread(points, 0.1)
    gaps = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + 9 * np.eye(len(placed))
    assert gaps.min(initial=9) > 0.09
    before = np.array(points).reshape(-1, 2)
    apart = np.linalg.norm(before[:, None] - before[None], axis=-1) + 9 * np.eye(len(before))
    if apart.min(initial=9) > 0.11:
        assert np.abs(placed - before).max(initial=0) < 0.01
