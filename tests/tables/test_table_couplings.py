"""The pairwise model against its equation and data sampled from it."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.data.synthetic import label_world
from aurel.tables import couplings as module
from aurel.tables.couplings import PairwiseModel, distinct_states, ising_couplings


def sampled(name: str, rows: int, seed: int = 0) -> np.ndarray:
    world = label_world(name)
    return world.sample(np.random.default_rng(seed).random(rows)).astype(np.int8)


def moments(fields: np.ndarray, couplings: np.ndarray) -> np.ndarray:
    """Return E[y y^T] of the model, by a loop over its states."""
    count = len(fields)
    total, weight_sum = np.zeros((count, count)), 0.0
    for index in range(1 << count):
        state = np.array([(index >> bit) & 1 for bit in range(count)], dtype=float)
        weight = np.exp(fields @ state + 0.5 * state @ np.nan_to_num(couplings) @ state)
        total += weight * np.outer(state, state)
        weight_sum += weight
    return total / weight_sum


def test_the_fit_has_the_rates_and_pairs_of_the_data() -> None:
    labels = sampled("DISFA", 5000)[:, :6]
    fields, couplings = ising_couplings(labels, ridge=0)
    assert np.allclose(
        moments(fields, couplings), labels.T.astype(float) @ labels / 5000, atol=1e-5
    )
    assert np.array_equal(couplings, couplings.T, equal_nan=True)


def test_couplings_of_a_sampled_model_are_recovered() -> None:
    world = label_world("BP4D")
    fields, couplings = ising_couplings(sampled("BP4D", 40_000))
    off = ~np.eye(12, dtype=bool)
    assert np.abs(couplings - world.couplings)[off].max() < 0.2
    assert np.abs(fields - world.fields).max() < 0.2


def test_the_pseudo_likelihood_recovers_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = sampled("BP4D", 40_000)
    exact = ising_couplings(labels)[1]
    monkeypatch.setattr(module, "EXACT_UP_TO", 3)
    off = ~np.eye(12, dtype=bool)
    assert np.abs(ising_couplings(labels)[1] - exact)[off].max() < 0.15


@pytest.mark.parametrize("exact", [True, False])
def test_the_gradient_is_that_of_the_objective(exact: bool) -> None:
    states, counts, _ = distinct_states(sampled("DISFA", 500)[:, :4])
    share = counts / counts.sum()
    rng = np.random.default_rng(0)
    point = rng.normal(size=10)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        if exact:
            features = module._features((np.arange(16)[:, None] >> np.arange(4)) & 1)
            return module._likelihood(parameters, features, share @ module._features(states))
        return module._pseudo_likelihood(parameters, states, share)

    gradient = objective(point)[1]
    for place in range(10):
        step = 1e-5 * np.eye(10)[place]
        slope = (objective(point + step)[0] - objective(point - step)[0]) / 2e-5
        assert gradient[place] == pytest.approx(slope, abs=1e-7)


def test_weights_repeat_rows_and_unknown_rows_are_left_out() -> None:
    labels = sampled("DISFA", 400)[:, :4]
    weights = np.random.default_rng(1).integers(0, 3, 400)
    repeated = np.repeat(labels, weights, axis=0)
    incomplete = repeated[:50].copy()
    incomplete[:, 1] = -1
    expected = ising_couplings(repeated)
    for found in (
        ising_couplings(labels, weights.astype(float)),
        ising_couplings(np.concatenate((repeated, incomplete))),
    ):
        for one, other in zip(found, expected, strict=True):
            assert np.allclose(one, other, atol=1e-4, equal_nan=True)


def test_a_pair_that_never_meets_is_finite_with_a_penalty_and_more_so_with_a_larger_one() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 0]] * 20, dtype=np.int8)
    weak, strong = (ising_couplings(labels, ridge=r)[1][0, 1] for r in (1e-4, 1e-2))
    assert weak < strong < 0 and np.isfinite(weak)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_aus_that_do_not_vary_have_no_coupling(rows: int) -> None:
    labels = np.tile(np.array([[0, 1, 0]], dtype=np.int8), (rows, 1))
    if rows:
        labels[0, 2] = 1
    fields, couplings = ising_couplings(labels)
    assert fields.shape == (3,) and np.isnan(fields[:2]).all() and np.isnan(couplings).all()
    assert np.isfinite(fields[2]) == (rows > 1)


def test_a_fit_from_another_start_is_the_same() -> None:
    states, counts, _ = distinct_states(sampled("DISFA", 2000))
    model = PairwiseModel.of(states, counts.astype(float))
    other = np.random.default_rng(0).multinomial(2000, counts / counts.sum()).astype(float)
    near = model.started_at(model.fit(counts.astype(float)))
    assert np.allclose(near.fit(other), model.fit(other), atol=2e-3)
