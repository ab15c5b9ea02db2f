"""Pairwise (Ising) models of the joint distribution of AU labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from aurel.data.synthetic.arrays import DoubleArray
from aurel.data.synthetic.statistics import LabelStatistics, label_statistics

Labels = NDArray[np.uint8]

TYPICAL_UPDATE = 0.025
TYPICAL_FROZEN = 0.3


@dataclass(frozen=True)
class LabelWorld:
    r"""A joint distribution of N labels, :math:`p(s) \propto \exp(h^T s + \frac{1}{2} s^T J s)`.

    Args:
        statistics: rates and couplings of a data set.
        coupling: factor of the couplings; 0 independent labels, 1 as in the data, 2 doubled.
        fields: h, (N,), for which the rates are those of the data at this coupling.
    """

    statistics: LabelStatistics
    coupling: float
    fields: DoubleArray

    @property
    def name(self) -> str:
        """Name of the distribution, such as "as in BP4D"."""
        known = {0.0: "couplings removed", 1.0: f"as in {self.statistics.name}", 2.0: "doubled"}
        return known.get(self.coupling, f"couplings times {self.coupling:g}")

    @property
    def aus(self) -> tuple[int, ...]:
        """The action units, in the order of the label columns."""
        return self.statistics.aus

    @property
    def couplings(self) -> DoubleArray:
        """The couplings J, (N, N)."""
        return self.coupling * self.statistics.couplings

    @cached_property
    def probabilities(self) -> DoubleArray:
        """The probability of each of the 2^N states; bit j of a state's index is label j."""
        return _probabilities(self.fields, self.couplings)

    @cached_property
    def update(self) -> DoubleArray:
        r"""Probability per frame that a label is sampled again, given the others, (N,).

        A label turns on at the rate of the data where
        :math:`\lambda_j\,E[\sigma_j (1 - \sigma_j)] = P(1 | 0)\,(1 - r_j)`, with
        :math:`\sigma_j` the probability of label j given the others.
        """
        turn_on = self.statistics.turn_on
        if turn_on is None:
            return np.full(len(self.aus), TYPICAL_UPDATE)
        states = all_states(len(self.aus))
        given_others = _sigmoid(self.fields + states @ self.couplings)
        flips = self.probabilities @ (given_others * (1 - given_others))
        return turn_on * (1 - self.statistics.rates) / flips

    def sample(self, numbers: DoubleArray) -> Labels:
        """Return n exact samples, (n, N), from n uniform random numbers."""
        index = np.searchsorted(self._cumulative, numbers, side="right")
        index = np.minimum(index, len(self._cumulative) - 1)
        return ((index[:, None] >> np.arange(len(self.aus))) & 1).astype(np.uint8)

    def sample_clip(self, frames: int, rng: np.random.Generator, speed: float = 1.0) -> Labels:
        """Sample labels of consecutive frames, (frames, N).

        A lazy heat-bath chain: in each frame each label is sampled again with its update
        probability, given the others. Every frame has the joint distribution of single images.
        Some labels are constant in a clip, as in recordings.

        Args:
            frames: length of the clip.
            rng: random number generator.
            speed: factor of the update probabilities; 3 to 6 for changes in short clips.
        """
        count = len(self.aus)
        state = self.sample(rng.random(1))[0].astype(np.float64)
        frozen = self.statistics.frozen
        frozen = np.full(count, TYPICAL_FROZEN) if frozen is None else frozen
        update = np.minimum(speed * self.update / (1 - frozen), 1.0) * (rng.random(count) >= frozen)
        hits = rng.random((frames, count)) < update
        numbers = rng.random((frames, count))
        labels = np.empty((frames, count), np.uint8)
        filled = 0
        for frame, au in np.argwhere(hits):
            labels[filled:frame] = state
            filled = int(frame)
            state[au] = numbers[frame, au] < _sigmoid(self.fields[au] + self.couplings[au] @ state)
        labels[filled:] = state
        return labels

    @cached_property
    def _cumulative(self) -> DoubleArray:
        return np.cumsum(self.probabilities)


@lru_cache(maxsize=16)
def label_world(name: str = "BP4D", coupling: float = 1.0) -> LabelWorld:
    """Return the joint distribution of labels of "BP4D", "DISFA", "EmotioNet" or "all".

    Args:
        name: the data set, or "all" for the union of the three.
        coupling: factor of the couplings between labels, in 0..4.

    Raises:
        ValueError: an unknown name, or a coupling out of range.
    """
    known = label_statistics()
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}")
    if not 0 <= coupling <= 4:
        raise ValueError(f"coupling must be in 0..4, got {coupling}")
    statistics = known[name]
    fields = statistics.fields
    if coupling != 1:
        fields = _solve_fields(statistics.rates, coupling * statistics.couplings, fields)
    return LabelWorld(statistics, float(coupling), fields)


@lru_cache(maxsize=4)
def all_states(count: int) -> DoubleArray:
    """Return the 2^count binary vectors, (2^count, count); column j is bit j of the row's index."""
    return ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1).astype(np.float64)


def _solve_fields(rates: DoubleArray, couplings: DoubleArray, start: DoubleArray) -> DoubleArray:
    """Return the fields with the given rates, by Newton's method on the convex dual."""
    states = all_states(len(rates))
    fields = start.copy()
    for _ in range(200):
        weighted = states * _probabilities(fields, couplings)[:, None]
        mean = weighted.sum(0)
        if np.abs(rates - mean).max() < 1e-7:
            break
        covariance = weighted.T @ states - np.outer(mean, mean)
        step = np.linalg.solve(covariance + 1e-9 * np.eye(len(rates)), rates - mean)
        fields += step * min(1.0, 1.5 / np.abs(step).max())
    return fields


def _probabilities(fields: DoubleArray, couplings: DoubleArray) -> DoubleArray:
    states = all_states(len(fields))
    energy = states @ fields + 0.5 * ((states @ couplings) * states).sum(1)
    weights = np.exp(energy - energy.max())
    return weights / weights.sum()


def _sigmoid(x: DoubleArray) -> DoubleArray:
    return 1 / (1 + np.exp(-x))
