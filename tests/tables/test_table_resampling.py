"""Units of resampling, intervals and their coverage, false discoveries."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.tables import AUTable
from aurel.tables.pairs import count_pairs, phi, rates
from aurel.tables.resampling import (
    Units,
    autocorrelation_time,
    block_length,
    blocks,
    chunks,
    estimate,
    false_discovery,
    false_discovery_pairs,
    permutation_p,
    resample_weights,
    resampling_units,
)

TABLE = np.array([0.5, 0.1, 0.15, 0.25])  # 00, 10, 01, 11
PHI = 0.47075654176200427


def chain(rows: int, renewal: float, rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """Return (rows, 2) labels: a state stays, or with a probability is chosen anew."""
    state = rng.choice(4, size=rows, p=shares)
    stay = rng.random(rows) > renewal
    stay[0] = False
    state = state[np.maximum.accumulate(np.where(stay, 0, np.arange(rows)))]
    return np.stack((state & 1, state >> 1), axis=1).astype(np.int8)


def table_of(parts: list[np.ndarray]) -> AUTable:
    person = [f"p{number:03d}" for number, part in enumerate(parts) for _ in part]
    labels = np.concatenate(parts)
    columns = {"person": person, "source": person, "AU01_c": labels[:, 0], "AU02_c": labels[:, 1]}
    return AUTable.from_frame(
        columns | {"frame": np.concatenate([np.arange(len(p)) for p in parts])}
    )


def covered(table: AUTable, seed: int, true_phi: float, true_rate: float) -> tuple[bool, bool]:
    units = resampling_units(table)
    weights = resample_weights(units, 200, seed)
    counts = count_pairs(table.labels, table.labels, units.starts, units.stops)
    whole = count_pairs(table.labels, table.labels, np.array([0]), np.array([len(table)])).total()
    samples = counts.weighted(weights)
    correlation = estimate(phi(whole), phi(samples), units, scale="atanh")
    rate = estimate(rates(whole), rates(samples), units, scale="logit", null=0.5)
    return (
        bool(correlation.low[0, 1] <= true_phi <= correlation.high[0, 1]),
        bool(rate.low[0] <= true_rate <= rate.high[0]),
    )


@pytest.mark.parametrize("renewal", [0.05, 1.0])
def test_intervals_of_one_person_cover_about_as_often_as_they_say(renewal: float) -> None:
    rng = np.random.default_rng(1)
    hits = [
        covered(table_of([chain(1500, renewal, rng, TABLE)]), run, PHI, 0.35) for run in range(80)
    ]
    assert (np.mean(hits, axis=0) >= 0.87).all()
    assert np.mean(hits) <= 0.99


def test_intervals_of_people_cover_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    mean = rng.dirichlet(8 * TABLE, 100_000).mean(0)
    first, second = mean[1] + mean[3], mean[2] + mean[3]
    true = (mean[3] - first * second) / np.sqrt(first * (1 - first) * second * (1 - second))
    hits = []
    for run in range(80):
        parts = [chain(150, 0.1, rng, rng.dirichlet(8 * TABLE)) for _ in range(12)]
        hits.append(covered(table_of(parts), run, true, first))
    assert (np.mean(hits, axis=0) >= 0.87).all()


def test_frames_as_if_independent_would_cover_far_too_rarely() -> None:
    rng = np.random.default_rng(3)
    misses = 0
    for _ in range(60):
        labels = chain(1500, 0.05, rng, TABLE)
        rate = labels[:, 0].mean()
        misses += abs(rate - 0.35) > 1.96 * np.sqrt(rate * (1 - rate) / 1500)
    assert misses > 20


def test_people_are_units_and_few_people_are_cut_into_blocks() -> None:
    rng = np.random.default_rng(4)
    many = table_of([chain(30, 0.5, rng, TABLE) for _ in range(6)])
    units = resampling_units(many)
    assert units.block == 0 and units.sample_size == len(units) == 6
    assert (units.stops - units.starts == 30).all()
    few = table_of([chain(300, 0.5, rng, TABLE) for _ in range(5)])
    units = resampling_units(few)
    assert units.block > 0 and units.sample_size == round(1500 / units.block)
    assert all(
        len(set(few.person[start:stop])) == 1
        for start, stop in zip(units.starts, units.stops, strict=True)
    )


@pytest.mark.parametrize("rows", [1, 2, 7, 20, 41])
@pytest.mark.parametrize("length", [1, 5, 20])
def test_blocks_that_do_not_overlap_hold_each_row_once(rows: int, length: int) -> None:
    table = table_of([np.zeros((rows, 2), np.int8), np.ones((3, 2), np.int8)])
    units = blocks(table, length, length)
    held = np.concatenate([np.arange(a, b) for a, b in zip(units.starts, units.stops, strict=True)])
    assert sorted(held) == list(range(rows + 3))
    overlapping = blocks(table, length, max(1, length // 4))
    assert (overlapping.stops > overlapping.starts).all()
    assert overlapping.stops.max() == rows + 3


def test_blocks_grow_with_the_memory_of_a_series() -> None:
    rng = np.random.default_rng(5)
    tables = [table_of([chain(4000, renewal, rng, TABLE)]) for renewal in (1.0, 0.2, 0.02)]
    times = [autocorrelation_time(table) for table in tables]
    # The correlation at lag k is (1 - renewal)^k, so the time is 2 / renewal - 1.
    for time, expected in zip(times, (1, 9, 99), strict=True):
        assert time.mean() == pytest.approx(expected, rel=0.5, abs=0.5)
    lengths = [block_length(table) for table in tables]
    assert lengths == sorted(lengths) and lengths[-1] > 5 * lengths[0]


def test_a_constant_or_unknown_series_has_blocks_too() -> None:
    for labels in (np.zeros((50, 2), np.int8), np.full((50, 2), 9, np.int8)):
        assert block_length(table_of([labels])) >= 1


def test_an_estimate_is_students_interval_on_its_scale() -> None:
    units = Units(np.arange(10), np.arange(10) + 1, sample_size=10)
    rng = np.random.default_rng(6)
    samples = 1 / (1 + np.exp(-rng.normal(0.4, 0.3, 20_000)))
    found = estimate(np.array(0.6), samples, units, scale="logit", null=0.5)
    center, reach = np.log(1.5), 2.2622 * 0.3 * np.sqrt(10 / 9)
    assert found.low == pytest.approx(1 / (1 + np.exp(-(center - reach))), abs=0.005)
    assert found.high == pytest.approx(1 / (1 + np.exp(-(center + reach))), abs=0.005)
    assert found.low < 0.5 and 0.05 < found.p < 0.5


def test_what_does_not_vary_or_is_seldom_defined_has_no_interval() -> None:
    units = Units(np.arange(5), np.arange(5) + 1, sample_size=5)
    constant = estimate(np.array(0.3), np.full(100, 0.3), units)
    rare = np.full(100, np.nan)
    rare[:70] = np.random.default_rng(7).random(70)
    for found in (
        constant,
        estimate(np.array(0.3), rare, units),
        estimate(np.array(np.nan), rare, units),
    ):
        assert np.isnan([found.low, found.high, found.p]).all()


def test_false_discoveries_are_controlled_as_by_the_definition() -> None:
    rng = np.random.default_rng(8)
    p = rng.random(30) ** 2
    p[[3, 9]] = np.nan
    adjusted = false_discovery(p)
    order = [index for index in np.argsort(p) if np.isfinite(p[index])]
    smallest = 1.0
    for rank in range(len(order), 0, -1):
        smallest = min(smallest, p[order[rank - 1]] * len(order) / rank)
        assert adjusted[order[rank - 1]] == pytest.approx(smallest)
    assert np.isnan(adjusted[[3, 9]]).all()
    assert np.isnan(false_discovery(np.full(3, np.nan))).all()


def test_a_pair_is_one_test() -> None:
    p = np.array([[0.0, 0.01, 0.2], [0.01, 0.0, np.nan], [0.2, np.nan, 0.0]])
    adjusted = false_discovery_pairs(p)
    expected = [[np.nan, 0.02, 0.2], [0.02, np.nan, np.nan], [0.2, np.nan, np.nan]]
    assert np.allclose(adjusted, expected, equal_nan=True)


def test_permutation_p_counts_the_value_itself() -> None:
    chance = np.array([[0.1, np.nan], [-0.3, np.nan], [0.5, np.nan]])
    assert permutation_p(np.array([0.3, 0.3]), chance)[0] == 3 / 4
    assert np.isnan(permutation_p(np.array([0.3, 0.3]), chance)[1])
    assert np.isnan(permutation_p(np.array([np.nan, np.nan]), chance)).all()


def test_chunks_add_up() -> None:
    assert list(chunks(10, 1)) == [10]
    parts = list(chunks(10, 1_500_000))
    assert sum(parts) == 10 and max(parts) == 2
