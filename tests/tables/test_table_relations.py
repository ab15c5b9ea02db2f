"""All relations of a table, and tables of which nearly nothing is known."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

from aurel.data.synthetic import label_world
from aurel.tables import AUTable, find_relations
from aurel.tables.pairs import phi
from aurel.tables.relations import FEWEST_TOGETHER, Relations


def people(count: int, rows: int = 120, seed: int = 0, world: str = "DISFA") -> AUTable:
    labels_of, rng = label_world(world), np.random.default_rng(seed)
    clips = [labels_of.sample_clip(rows, rng, speed=4) for _ in range(count)]
    name = np.repeat([f"p{n:02d}" for n in range(count)], rows)
    labels = np.concatenate(clips)
    aus = {f"AU{au:02d}_c": labels[:, n] for n, au in enumerate(labels_of.aus)}
    frame = np.tile(np.arange(rows), count)
    return AUTable.from_frame({"person": name, "input": name, "frame": frame} | aus, fps=25)


def arrays(found: object) -> list[np.ndarray]:
    """Return all float arrays inside a result."""
    if isinstance(found, np.ndarray):
        return [found] if found.dtype == float else []
    if isinstance(found, AUTable) or not is_dataclass(found):
        return []
    return [array for field in fields(found) for array in arrays(getattr(found, field.name))]


@pytest.fixture(scope="module")
def relations() -> Relations:
    return find_relations(people(16, world="BP4D"), resamples=100, lag=0.2)


def test_matrices_have_a_row_and_a_column_an_au(relations: Relations) -> None:
    assert relations.units.sample_size == 16 and relations.complete == 16 * 120
    for matrix in (relations.phi.estimate.value, relations.phi.q, relations.couplings.q):
        assert matrix.shape == (12, 12) and np.array_equal(matrix, matrix.T, equal_nan=True)
    assert relations.rates.value == pytest.approx((relations.table.labels == 1).mean(0))
    assert np.allclose(relations.phi.estimate.value, phi(relations.counts), equal_nan=True)
    timing = relations.timing
    assert timing is not None
    assert np.allclose(timing.lead.estimate.value, -timing.lead.estimate.value.T, equal_nan=True)
    tested = np.isfinite(timing.first.estimate.p)
    assert np.allclose((timing.first.estimate.value + timing.first.estimate.value.T)[tested], 1)


def test_the_strongest_relation_of_the_world_survives(relations: Relations) -> None:
    first, second = relations.table.aus.index(6), relations.table.aus.index(12)
    assert relations.phi.survives()[first, second]
    assert relations.couplings.survives()[first, second]
    assert not np.diagonal(relations.phi.survives()).any()


def test_effective_frames_are_fewer_than_frames(relations: Relations) -> None:
    assert 16 < relations.effective_frames < 16 * 120 / 4
    finite = np.isfinite(relations.effective)
    assert (relations.effective[finite] <= relations.counts.known[finite]).all()


def test_a_pair_is_tested_where_enough_effective_frames_show_it(relations: Relations) -> None:
    share = np.fmax(relations.observed, relations.expected)
    tested = np.isfinite(relations.phi.q)
    assert (relations.effective[tested] * share[tested] >= FEWEST_TOGETHER).all()


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others() -> None:
    table = people(8)
    one, two, three = (find_relations(table, resamples=40, seed=seed) for seed in (1, 1, 2))
    for first, second in zip(arrays(one), arrays(two), strict=True):
        assert np.array_equal(first, second, equal_nan=True)
    assert not np.allclose(one.phi.estimate.low, three.phi.estimate.low, equal_nan=True)


def test_relations_that_are_not_there_rarely_survive() -> None:
    rng = np.random.default_rng(5)
    survivors = []
    for run in range(6):
        table = people(10, seed=run)
        for au in range(8):  # each AU of another person
            order = rng.permutation(10)
            table.labels[:, au] = table.labels[:, au].reshape(10, -1)[order].reshape(-1)
        found = find_relations(table, resamples=40, seed=run)
        assert found.timing is not None
        parts = (found.phi, found.couplings, found.timing.lead, found.timing.first)
        survivors.append([part.survives().any() for part in parts])
    assert (np.sum(survivors, axis=0) <= 2).all()


def odd_tables() -> dict[str, AUTable]:
    rng = np.random.default_rng(6)

    def make(labels: np.ndarray, **options: object) -> AUTable:
        aus = {
            f"AU{au:02d}_c": labels[:, n] for n, au in enumerate((1, 2, 4, 5)[: labels.shape[1]])
        }
        return AUTable.from_frame({"frame": np.arange(len(labels))} | aus | options, fps=25)

    random = (rng.random((90, 4)) < 0.4).astype(np.int8)
    rare, partly = np.zeros((90, 4), np.int8), random.copy()
    rare[3, 0] = rare[50, 1] = 1
    partly[:, 1], partly[:45, 2], partly[:, 3] = -1, -1, 1
    return {
        "one row": make(random[:1]),
        "two rows": make(random[:2]),
        "one AU": make(random[:, :1]),
        "never": make(np.zeros((90, 4), np.int8)),
        "always": make(np.ones((90, 4), np.int8)),
        "rare": make(rare),
        "partly unknown": make(partly),
        "no two AUs known together": make(
            np.where(np.eye(4, dtype=bool)[np.arange(90) % 4], random, np.int8(-1))
        ),  # fmt: skip
        "equal AUs": make(np.repeat(random[:, :1], 4, axis=1)),
        "photos": make(
            random, person=[f"photo{n}" for n in range(90)], input=[f"{n}" for n in range(90)]
        ),  # fmt: skip
        "conditions of one row": make(random, condition=["a"] * 89 + ["b"]),
        "three conditions": make(random, condition=["a", "b", "c"] * 30),
        "seven people": make(random[:84], person=[f"p{n // 12}" for n in range(84)]),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", odd_tables())
def test_an_odd_table_has_relations_of_nan_and_no_exception(name: str) -> None:
    table = odd_tables()[name]
    found = find_relations(table, resamples=30, lag=0.2)
    assert found.phi.q.shape == (len(table.aus),) * 2
    for array in arrays(found):
        assert not np.isinf(array).any()
    if name in ("never", "always", "one row"):
        assert np.isnan(found.phi.estimate.value).all() and np.isnan(found.couplings.q).all()


def test_bad_arguments_are_named() -> None:
    table = people(6, rows=20)
    for options, said in (
        ({"level": 1.0}, "level must be between 0 and 1, got 1.0"),
        ({"resamples": 5}, "resamples must be at least 20, got 5"),
        ({"lag": 0.0}, "lag must be positive, got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            find_relations(table, **options)
    table.labels[:] = -1
    with pytest.raises(ValueError, match="frame: at least one row must have a known AU"):
        find_relations(table)


def test_real_tables_have_relations(shared: Path) -> None:
    folder = shared / "data" / "real"
    found = find_relations(AUTable.read(folder / "OpenFace_Test.csv", fps=30), resamples=50)
    assert np.isnan(np.diagonal(found.phi.estimate.value)).sum() == 14
    clips = AUTable.read(sorted(folder.glob("pyfeat_news_0*.csv")), fps=25)
    found = find_relations(clips, resamples=20, lag=0.24)
    first, second = clips.aus.index(1), clips.aus.index(2)
    assert found.phi.estimate.value[first, second] > 0.7 and found.units.block > 0
