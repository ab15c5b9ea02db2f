"""Planted relations in time, gaps, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.tables import AUTable
from aurel.tables.pairs import count_pairs, phi
from aurel.tables.resampling import Units, resampling_units
from aurel.tables.timing import (
    after_onset,
    first_share,
    frame_step,
    lagged_counts,
    onsets,
    order_counts,
    order_p,
    rows_later,
)


def table_of(
    labels: np.ndarray, frame: np.ndarray | None = None, fps: float | None = 10
) -> AUTable:
    columns = {f"AU{au:02d}_c": column for au, column in zip((1, 2, 4), labels.T, strict=False)}
    frame = np.arange(len(labels)) if frame is None else frame
    return AUTable.from_frame(columns | {"frame": frame}, fps=fps)


def runs(rows: int, rng: np.random.Generator, length: int = 8, every: int = 40) -> np.ndarray:
    """Return a label that is on for a while, now and then."""
    label = np.zeros(rows, np.int8)
    for start in range(0, rows - every, every):
        at = start + rng.integers(0, every - length)
        label[at : at + length] = 1
    return label


def whole(table: AUTable) -> Units:
    return Units(np.array([0]), np.array([len(table)]), sample_size=1)


def test_rows_a_lag_later_are_found_by_time_and_not_across_gaps_or_tracks() -> None:
    labels = np.zeros((6, 1), np.int8)
    table = table_of(labels, np.array([0, 1, 2, 5, 6, 7]))
    assert frame_step(table) == pytest.approx(0.1)
    assert rows_later(table, 0.2).tolist() == [2, -1, -1, 5, -1, -1]
    assert rows_later(table, 0.1).tolist() == [1, 2, -1, 4, 5, -1]
    other = table_of(labels, np.arange(6))
    both = AUTable.concat([table, other])
    assert rows_later(both, 0.5).tolist() == [3, 4, 5, -1, -1, -1, 11, -1, -1, -1, -1, -1]
    untimed = table_of(labels, fps=None)
    assert np.isnan(frame_step(untimed)) and (rows_later(untimed, 0.1) == -1).all()


@pytest.mark.parametrize("fps", [10, None])
def test_onsets_are_changes_from_absent_to_present_in_frames_that_follow(fps: float | None) -> None:
    labels = np.array([[1], [0], [1], [1], [9], [1], [0], [1]], np.int8)
    table = table_of(labels, np.array([0, 1, 2, 3, 4, 5, 6, 9]), fps)
    assert onsets(table)[:, 0].tolist() == [-1, 0, 1, 0, -1, -1, 0, -1]


def test_lagged_correlation_is_that_of_shifted_labels() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int8)
    counts, _ = lagged_counts(table_of(labels), whole(table_of(labels)), 0.3)
    for i in range(3):
        for j in range(3):
            expected = np.corrcoef(labels[:-3, i], labels[3:, j])[0, 1]
            assert phi(counts.total())[i, j] == pytest.approx(expected)
    shifted = count_pairs(labels[:-3], labels[3:], np.array([0]), np.array([197])).total()
    assert np.array_equal(shifted.both, counts.total().both)


def test_an_au_that_follows_another_is_found() -> None:
    rng = np.random.default_rng(1)
    first = runs(4000, rng)
    second = np.roll(first, 5)
    other = runs(4000, rng)
    table = table_of(np.stack((first, second, other), axis=1))
    units = resampling_units(table)
    present, starting = lagged_counts(table, whole(table), 0.5)
    lagged = phi(present.total())
    assert lagged[0, 1] == pytest.approx(1, abs=0.01) and lagged[1, 0] < 0.1
    change = after_onset(starting.total())
    assert change[0, 1] == pytest.approx(1 - second.mean(), abs=0.01)
    assert abs(change[0, 2]) < 0.15
    counts = order_counts(table, units, 1.0).total()
    summed = order_counts(table, whole(table), 1.0).total()
    assert summed.first[0, 1] == 99 and summed.first[1, 0] == 0
    assert summed.delay[0, 1] / summed.first[0, 1] == pytest.approx(0.5)
    assert np.allclose(counts.delay, -counts.delay.T)
    share = first_share(summed)
    assert share[0, 1] == pytest.approx(99.5 / 100) and share[1, 0] == pytest.approx(0.5 / 100)


def test_starts_in_the_same_frame_have_no_order() -> None:
    label = runs(800, np.random.default_rng(2))
    table = table_of(np.stack((label, label), axis=1))
    counts = order_counts(table, whole(table), 1.0).total()
    assert counts.first.sum() == 0 and counts.same[0, 1] == onsets(table)[:, 0].clip(0).sum()
    assert np.isnan(first_share(counts)[0, 1])


def test_starts_too_far_apart_or_of_other_tracks_do_not_belong_together() -> None:
    labels = np.zeros((60, 2), np.int8)
    labels[10:15, 0] = labels[35:40, 1] = 1
    table = table_of(labels)
    assert order_counts(table, whole(table), 2.0).total().first.sum() == 0
    assert order_counts(table, whole(table), 3.0).total().first.tolist() == [[0, 1], [0, 0]]
    one, other = labels.copy(), labels.copy()
    one[:, 1] = other[:, 0] = 0
    apart = AUTable.concat([table_of(one), table_of(other)])
    assert order_counts(apart, whole(apart), 3.0).total().first.sum() == 0


def test_each_start_has_one_partner_and_units_share_them_out() -> None:
    labels = np.zeros((100, 2), np.int8)
    labels[[10, 14], 0] = 1
    labels[12, 1] = labels[60, 1] = labels[62, 0] = 1
    table = table_of(labels)
    counts = order_counts(table, whole(table), 1.0).total()
    assert counts.first.sum() == 2
    halves = Units(np.array([0, 50]), np.array([50, 100]), sample_size=2)
    by_half = order_counts(table, halves, 1.0)
    assert by_half.first[:, 0, 1].tolist() == [1, 0] and by_half.first[:, 1, 0].tolist() == [0, 1]


def test_the_order_of_unrelated_aus_is_significant_as_often_as_chance_says() -> None:
    rng = np.random.default_rng(3)
    found = []
    for run in range(60):
        labels = np.stack([runs(1200, rng) for _ in range(3)], axis=1)
        table = table_of(labels)
        units = Units(np.arange(0, 1200, 80), np.arange(80, 1201, 80), sample_size=15)
        p = order_p(order_counts(table, units, 2.0), 400, run)
        found += p[np.triu_indices(3, 1)].tolist()
    found = np.array(found)
    assert 0.35 < np.mean(found) < 0.7
    assert np.mean(found <= 0.05) < 0.1
