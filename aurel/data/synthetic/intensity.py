"""Intensities of the action units on each side and in each frame, from labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aurel.data.synthetic.actions import COLUMN, SHOWN_AUS
from aurel.data.synthetic.arrays import Array, DoubleArray
from aurel.data.synthetic.label_model import Labels

NUMBERS = 4 * len(SHOWN_AUS)
TRACE_SHARE = 0.25
TRACE_MOST = 0.22
ASYMMETRY = 0.18
UNLABELED = {
    5: 0.05, 6: 0.20, 7: 0.20, 9: 0.03, 10: 0.10, 14: 0.10, 15: 0.08, 17: 0.10,
    20: 0.03, 23: 0.05, 24: 0.05, 25: 0.28, 26: 0.08, 43: 0.02,
}  # fmt: skip
"""Rate of a unit on faces of a set that does not label it."""

_LEAD, _RISE, _FALL = 2, 8, 12


def sample_intensities(
    labels: Labels, aus: Sequence[int], numbers: DoubleArray, faintest: float = 0.2
) -> Array:
    """Return an intensity of every unit, (n, 18, 2): image left, image right.

    The intensity of a present unit is between `faintest` and 1; that of an absent one is 0 or, in
    one of four cases, a trace (level A of FACS, which labels do not count). Units that the label
    set lacks occur at the rates `UNLABELED`, as they do in recordings.

    Args:
        labels: 1 present, 0 absent, (n, N).
        aus: the unit of each label column.
        numbers: uniform random numbers (n, NUMBERS).
        faintest: lowest intensity of a present unit.
    """
    units = len(SHOWN_AUS)
    level, chance = numbers[:, :units], numbers[:, units : 2 * units]
    sides = numbers[:, 2 * units :].reshape(-1, units, 2)
    strength = faintest + (1 - faintest) * level * (0.5 + 0.5 * level)
    trace = np.where(chance < TRACE_SHARE, TRACE_MOST * level, 0)
    mean = np.zeros_like(level)
    for au, probability in UNLABELED.items():
        column = COLUMN[au]
        mean[:, column] = np.where(chance[:, column] < probability, strength[:, column], 0)
    for index, au in enumerate(aus):
        column = COLUMN[au]
        mean[:, column] = np.where(labels[:, index] > 0, strength[:, column], trace[:, column])
    _reconcile(mean, aus)
    return np.clip(mean[..., None] * (1 + ASYMMETRY * (2 * sides - 1)), 0, 1).astype(np.float32)


def onset_apex_offset(labels: Labels) -> Array:
    """Return smooth envelopes in 0..1 for the labels of a clip (T, N).

    A unit starts to rise two frames before its label, is at its apex six frames after the start of
    the label, and decreases more slowly than it rose.
    """
    frames = len(labels)
    time = np.arange(frames)
    envelope = np.zeros(labels.shape, np.float32)
    for column, present in enumerate(labels.T.astype(np.int8)):
        edges = np.diff(np.concatenate([[0], present, [0]]))
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            rise = (time - start + _LEAD) / _RISE if start > 0 else np.ones(frames)
            fall = (end - 1 - time + _LEAD) / _FALL if end < frames else np.ones(frames)
            height = np.clip(np.minimum(rise, fall), 0, 1)
            height = height * height * (3 - 2 * height)
            envelope[:, column] = np.maximum(envelope[:, column], height)
    return envelope


def drift(rng: np.random.Generator, frames: int, columns: int, period: int) -> DoubleArray:
    """Return smooth noise in -1..1, (frames, columns), with a new value every `period` frames."""
    knots = 2 * rng.random((frames // period + 2, columns)) - 1
    position = np.arange(frames) / period
    before = position.astype(int)
    share = (position - before)[:, None]
    share = share * share * (3 - 2 * share)
    return knots[before] * (1 - share) + knots[before + 1] * share


def _reconcile(mean: DoubleArray, aus: Sequence[int]) -> None:
    """Reduce unlabeled units that a face cannot show together with others, in place."""
    pressed = np.maximum(mean[:, COLUMN[24]], 0.7 * mean[:, COLUMN[23]])
    for au in (25, 26):
        if au not in aus:
            mean[:, COLUMN[au]] *= 1 - pressed
    if 25 not in aus and 26 not in aus:
        mean[:, COLUMN[25]] = np.maximum(mean[:, COLUMN[25]], mean[:, COLUMN[26]])
    mean[:, COLUMN[5]] *= 1 - mean[:, COLUMN[43]]
