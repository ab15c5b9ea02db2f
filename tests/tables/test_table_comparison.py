"""Permutation tests of two conditions."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.tables import AUTable
from aurel.tables.comparison import compare
from aurel.tables.resampling import resampling_units


def study(
    rng: np.random.Generator,
    people: int = 10,
    rows: int = 60,
    change: float = 0.0,
    paired: bool = True,
) -> AUTable:
    """Return people whose own rates differ, AU01 commoner by `change` in condition b."""
    columns: dict[str, list[object]] = {name: [] for name in ("person", "condition", "input")}
    labels = []
    for person in range(people):
        own = 0.2 + 0.3 * rng.random(3)
        for condition in "ab" if paired else "ab"[person % 2]:
            rate = own + (change if condition == "b" else 0) * np.array([1, 0, 0])
            labels.append((rng.random((rows, 3)) < rate).astype(np.int8))
            name = f"p{person:02d}"
            for key, value in zip(columns, (name, condition, name + condition), strict=True):
                columns[key] += [value] * rows
    stacked = np.concatenate(labels)
    columns["frame"] = list(range(rows)) * len(labels)
    aus = {f"AU{n:02d}_c": stacked[:, n - 1] for n in (1, 2, 3) if n != 3} | {
        "AU04_c": stacked[:, 2]
    }
    return AUTable.from_frame(columns | aus)


@pytest.mark.parametrize(("people", "paired"), [(10, True), (24, False), (2, True)])
def test_a_change_is_found_and_no_other(people: int, paired: bool) -> None:
    table = study(np.random.default_rng(0), people, 300, change=0.3, paired=paired)
    units = resampling_units(table)
    assert (units.block > 0) == (people < 6)
    found = compare(table, units, "a", "b", resamples=200)
    assert (found.paired, found.unpaired) == ((people, 0) if paired else (0, people))
    assert found.rates.q[0] < 0.05 and found.rates.q[1:].min() > 0.05
    assert found.rates.estimate.value == pytest.approx(found.rates.second - found.rates.first)
    assert found.rates.estimate.low[0] > 0.1 and found.rates.estimate.high[0] < 0.5
    rows = table.labels[table.condition == "b"]
    assert found.rates.second == pytest.approx(rows.mean(0))
    assert found.phi.second[0, 1] == pytest.approx(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_uniform_where_conditions_do_not_differ(paired: bool) -> None:
    rng = np.random.default_rng(1)
    found = []
    for run in range(60):
        table = study(rng, people=10, rows=30, paired=paired)
        result = compare(table, resampling_units(table), "a", "b", resamples=30, seed=run)
        found.append(result.rates.estimate.p)
    p = np.concatenate(found)
    assert abs(p.mean() - 0.5) < 0.08
    assert np.mean(p <= 0.1) < 0.17 and np.mean(p <= 0.5) > 0.38


def test_people_who_differ_are_no_change() -> None:
    """Rows are far from independent: with rows shuffled freely this would be significant."""
    rng = np.random.default_rng(2)
    significant = 0
    for run in range(30):
        table = study(rng, people=12, rows=200, paired=False)
        result = compare(table, resampling_units(table), "a", "b", resamples=20, seed=run)
        significant += int((result.rates.estimate.p <= 0.05).sum())
    assert significant <= 12  # of 90


def test_conditions_that_cannot_change_places_are_not_tested() -> None:
    table = study(np.random.default_rng(3), people=2, rows=100, paired=False)
    found = compare(table, resampling_units(table), "a", "b", resamples=50)
    assert np.isnan(found.rates.estimate.p).all() and np.isnan(found.rates.q).all()
    assert np.isfinite(found.rates.estimate.value).all()


def test_an_au_unknown_in_one_condition_is_not_compared() -> None:
    table = study(np.random.default_rng(4), change=0.3)
    table.labels[table.condition == "a", 1] = -1
    found = compare(table, resampling_units(table), "a", "b", resamples=50)
    assert np.isnan(found.rates.first[1]) and np.isnan(found.rates.q[1])
    assert np.isfinite(found.rates.q[[0, 2]]).all()
