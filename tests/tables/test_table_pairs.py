"""Counts of pairs against numpy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aurel.facs import AUSet, conditional_probabilities
from aurel.tables.pairs import conditional, count_pairs, phi, phi_variance, rates, together
from aurel.tables.patterns import pattern_counts, pattern_shares, patterns_in

WHOLE = (np.array([0]), np.array([10_000]))


def labels_of(seed: int, rows: int = 300, aus: int = 4, unknown: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.random((rows, 1)) < 0.4
    labels = ((rng.random((rows, aus)) < 0.3) | (common & (rng.random((rows, aus)) < 0.6))).astype(
        np.int8
    )
    labels[rng.random(labels.shape) < unknown] = -1
    return labels


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=st.integers(-1, 1))
)
def test_statistics_of_two_aus_are_those_of_the_rows_in_which_both_are_known(
    labels: np.ndarray,
) -> None:
    counts = count_pairs(labels, labels, *WHOLE).total()
    observed, expected = together(counts)
    correlation, given_first = phi(counts), conditional(counts)
    for i in range(labels.shape[1]):
        for j in range(labels.shape[1]):
            rows = (labels[:, i] >= 0) & (labels[:, j] >= 0)
            a, b = labels[rows, i].astype(float), labels[rows, j].astype(float)
            if not len(a):
                assert np.isnan([correlation[i, j], observed[i, j], given_first[i, j]]).all()
                continue
            assert observed[i, j] == pytest.approx((a * b).mean())
            assert expected[i, j] == pytest.approx(a.mean() * b.mean())
            if a.std() > 0 and b.std() > 0:
                assert correlation[i, j] == pytest.approx(np.corrcoef(a, b)[0, 1])
            else:
                assert np.isnan(correlation[i, j])
            if a.any():
                assert given_first[i, j] == pytest.approx(b[a == 1].mean())
            else:
                assert np.isnan(given_first[i, j])


def test_conditional_probabilities_are_those_of_facs() -> None:
    labels = labels_of(0)
    expected = conditional_probabilities(torch.from_numpy(labels)).numpy()
    assert np.allclose(conditional(count_pairs(labels, labels, *WHOLE).total()), expected)


def test_units_add_up_and_weights_repeat_them() -> None:
    labels = labels_of(1)
    starts, stops = np.array([0, 70, 200]), np.array([70, 200, 300])
    counts = count_pairs(labels, labels, starts, stops)
    whole = count_pairs(labels, labels, *WHOLE).total()
    assert np.array_equal(counts.total().both, whole.both)
    weights = np.array([[2.0, 0, 1]])
    repeated = np.concatenate((labels[:70], labels[:70], labels[200:]))
    sampled, direct = counts.weighted(weights), count_pairs(repeated, repeated, *WHOLE)
    assert np.array_equal(phi(sampled), phi(direct)) and np.array_equal(
        rates(sampled), rates(direct)
    )


def test_the_variance_of_phi_is_that_of_independent_rows() -> None:
    rng = np.random.default_rng(2)
    table = np.array([0.5, 0.1, 0.15, 0.25])
    found = []
    for state in rng.choice(4, size=(3000, 400), p=table):
        labels = np.stack((state & 1, state >> 1), axis=1).astype(np.int8)
        found.append(phi(count_pairs(labels, labels, *WHOLE).total())[0, 1])
    state = np.repeat(np.arange(4), (table * 400).astype(int))
    labels = np.stack((state & 1, state >> 1), axis=1).astype(np.int8)
    expected = phi_variance(count_pairs(labels, labels, *WHOLE).total())[0, 1] / 400
    assert np.var(found) == pytest.approx(expected, rel=0.1)


def test_patterns_count_rows_in_which_all_their_aus_are_known() -> None:
    labels = labels_of(3)
    aus = AUSet.of([6, 12, 1, 2])
    patterns = patterns_in(aus, [(6, 12), (1, 2, 12), (9, 10)])
    assert patterns == [(0, 1), (2, 3, 1)]
    counts = pattern_counts(labels, patterns, np.array([0, 100]), np.array([100, 300]))
    observed, expected = pattern_shares(counts.sum(0), patterns)
    for place, pattern in enumerate(patterns):
        own = labels[:, pattern]
        own = own[(own >= 0).all(1)]
        assert observed[place] == pytest.approx((own == 1).all(1).mean())
        assert expected[place] == pytest.approx(own.mean(0).prod())
