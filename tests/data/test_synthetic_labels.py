"""Label models: rates, correlations and persistence are those of the data sets."""

from __future__ import annotations

import numpy as np
import pytest

from aurel.data.synthetic.actions import COLUMN
from aurel.data.synthetic.intensity import NUMBERS, onset_apex_offset, sample_intensities
from aurel.data.synthetic.label_model import LabelWorld, all_states, label_world
from aurel.data.synthetic.statistics import label_statistics, statistics_for

# Correlations counted in the published label lists, independently of the fitted model.
COUNTED = {
    "BP4D": {(1, 2): 0.46, (6, 7): 0.54, (6, 12): 0.54, (4, 12): -0.27, (17, 24): 0.42},
    "DISFA": {(1, 2): 0.63, (6, 12): 0.50, (4, 9): 0.34, (12, 25): 0.46},
    "EmotioNet": {(6, 12): 0.59, (4, 9): 0.33, (25, 26): 0.28},
}


def moments(world: LabelWorld) -> tuple[np.ndarray, np.ndarray]:
    """Return exact rates and correlations, by sums over all states."""
    states = all_states(len(world.aus))
    mean = world.probabilities @ states
    covariance = (states * world.probabilities[:, None]).T @ states - np.outer(mean, mean)
    deviation = np.sqrt(np.diag(covariance))
    return mean, covariance / np.outer(deviation, deviation)


@pytest.mark.parametrize("name", COUNTED)
def test_the_pairwise_model_has_the_counted_correlations(name: str) -> None:
    world = label_world(name)
    _, correlation = moments(world)
    for (first, second), counted in COUNTED[name].items():
        value = correlation[world.aus.index(first), world.aus.index(second)]
        assert value == pytest.approx(counted, abs=0.01), (first, second)


@pytest.mark.parametrize("name", ["BP4D", "DISFA", "EmotioNet"])
@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0, 2.0])
def test_the_coupling_does_not_change_the_rates(name: str, coupling: float) -> None:
    world = label_world(name, coupling)
    mean, correlation = moments(world)
    np.testing.assert_allclose(mean, label_statistics()[name].rates, atol=1e-4)
    strength = np.abs(correlation - np.eye(len(mean))).max()
    if coupling == 0:
        assert strength < 1e-9
    else:
        assert strength > 0.2


def test_doubled_couplings_give_higher_correlations() -> None:
    single, double = (moments(label_world("BP4D", coupling))[1] for coupling in (1.0, 2.0))
    aus = label_world("BP4D").aus
    for pair in ((1, 2), (6, 7), (6, 10), (17, 24)):
        entry = aus.index(pair[0]), aus.index(pair[1])
        assert double[entry] > single[entry] + 0.15


@pytest.mark.parametrize("coupling", [0.0, 1.0, 2.0])
def test_samples_have_the_distribution(coupling: float) -> None:
    world = label_world("BP4D", coupling)
    labels = world.sample(np.random.default_rng(3).random(40_000)).astype(float)
    mean, correlation = moments(world)
    np.testing.assert_allclose(labels.mean(0), mean, atol=0.012)
    np.testing.assert_allclose(np.corrcoef(labels.T), correlation, atol=0.025)


def test_samples_at_the_ends_of_the_unit_interval() -> None:
    labels = label_world("DISFA").sample(np.array([0.0, 1 - 2**-53, 1.0]))
    assert labels.shape == (3, 8)
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize("name", ["BP4D", "DISFA"])
def test_clips_persist_as_in_the_recordings(name: str) -> None:
    world = label_world(name)
    statistics = label_statistics()[name]
    assert statistics.turn_on is not None
    rng = np.random.default_rng(5)
    clips = np.stack([world.sample_clip(400, rng) for _ in range(150)])
    before, after = clips[:, :-1].astype(bool), clips[:, 1:].astype(bool)
    turn_on = (~before & after).sum((0, 1)) / (~before).sum((0, 1))
    stay_on = (before & after).sum((0, 1)) / before.sum((0, 1))
    rates = statistics.rates
    np.testing.assert_allclose(turn_on, statistics.turn_on, rtol=0.35, atol=2e-4)
    # Rates and onsets decide how long units stay: as many turn off as turn on.
    expected = 1 - statistics.turn_on * (1 - rates) / rates
    np.testing.assert_allclose(stay_on, expected, atol=0.008)
    np.testing.assert_allclose(clips.mean((0, 1)), rates, atol=0.08)


def test_every_frame_of_a_clip_has_the_joint_distribution() -> None:
    world = label_world("BP4D")
    rng = np.random.default_rng(1)
    last = np.stack([world.sample_clip(12, rng, speed=6)[-1] for _ in range(4000)]).astype(float)
    mean, correlation = moments(world)
    np.testing.assert_allclose(last.mean(0), mean, atol=0.035)
    np.testing.assert_allclose(np.corrcoef(last.T), correlation, atol=0.08)


def test_speed_makes_changes_more_frequent() -> None:
    world = label_world("BP4D")
    changes = []
    for speed in (1.0, 4.0):
        clip = world.sample_clip(4000, np.random.default_rng(0), speed).astype(int)
        changes.append(np.abs(np.diff(clip, axis=0)).sum())
    assert 2.5 * changes[0] < changes[1] < 6 * changes[0]


def test_names_of_label_models() -> None:
    names = [label_world("BP4D", coupling).name for coupling in (0, 1, 2, 1.5)]
    assert names == ["couplings removed", "as in BP4D", "doubled", "couplings times 1.5"]


def test_the_smallest_set_that_holds_the_units_is_chosen() -> None:
    assert statistics_for((1, 26)).name == "DISFA"
    assert statistics_for((14,)).name == "BP4D"
    assert statistics_for((5, 43)).name == "EmotioNet"
    assert statistics_for((5, 14)).name == "all"
    with pytest.raises(ValueError, match=r"aus must be among 1, 2, .* got 27, 33 as well"):
        statistics_for((1, 33, 27))


def test_bad_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of BP4D"):
        label_world("CK+")
    with pytest.raises(ValueError, match=r"coupling must be in 0..4, got -1"):
        label_world("BP4D", -1)


def test_intensities_follow_labels() -> None:
    rng = np.random.default_rng(0)
    world = label_world("BP4D")
    labels = world.sample(rng.random(3000))
    values = sample_intensities(labels, world.aus, rng.random((3000, NUMBERS)), faintest=0.4)
    assert values.shape == (3000, 18, 2)
    assert values.dtype == np.float32
    assert 0 <= values.min() <= values.max() <= 1
    for column, au in enumerate(world.aus):
        present = labels[:, column] == 1
        mean = values[:, COLUMN[au]].mean(1)
        assert mean[present].min() > 0.4 * 0.8
        assert mean[~present].max() < 0.22 * 1.2
        assert (mean[~present] == 0).mean() == pytest.approx(0.75, abs=0.05)
    assert np.abs(values[..., 0] - values[..., 1]).max() > 0.1


def test_envelopes_rise_before_the_label_and_fade_after_it() -> None:
    labels = np.zeros((60, 2), np.uint8)
    labels[20:40, 0] = 1
    labels[:, 1] = 1
    envelope = onset_apex_offset(labels)
    assert envelope[17, 0] == 0
    assert 0 < envelope[19, 0] < envelope[21, 0] < 1
    assert envelope[27, 0] == envelope[29, 0] == 1
    assert 0 < envelope[40, 0] < envelope[36, 0] < 1
    assert (envelope[:, 1] == 1).all()
