"""Probabilities of a table's AUs, coupled with each other and smoothed along time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurel.facs import AUSet
from aurel.layers import ChainInference, PlattScaling
from aurel.tables.au_table import AUTable

Floats = NDArray[np.float64]
TEMPERS = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Factors of the evidence from which the best on held-out people is chosen."""

_CERTAIN = 0.01  # probabilities of a tool are moved into [0.01, 0.99]


@dataclass(frozen=True)
class Smoothing:
    """The result of `smooth`.

    Args:
        aus: the N AUs that both the table and the labels have.
        probabilities: (M, N) for the rows of the table.
        temper: the chosen factor of the evidence.
        people: the people with labels.
        frames: (P,) labeled frames of each.
        alone: (P,) log-likelihood of their labels in nats, each AU and frame by itself.
        coupled: (P,) the same with coupled AUs along time. Both are for people held out of the fit.
    """

    aus: AUSet
    probabilities: Floats
    temper: float
    people: tuple[str, ...]
    frames: NDArray[np.int64]
    alone: Floats
    coupled: Floats

    def gain(self, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Floats:
        """Return the gain in log-likelihood, nats a frame, with its interval from resampled people.

        (3,): the gain, and the lower and the upper end.
        """
        generator = np.random.default_rng(seed)
        people = len(self.people)
        counts = generator.multinomial(people, np.full(people, 1 / people), resamples)
        gains = counts @ (self.coupled - self.alone) / (counts @ self.frames)
        ends = np.quantile(gains, ((1 - level) / 2, (1 + level) / 2))
        return np.array([(self.coupled - self.alone).sum() / self.frames.sum(), *ends])


def smooth(table: AUTable, labels: AUTable, *, folds: int = 5, seed: int = 0) -> Smoothing:
    """Return coupled, smoothed probabilities for a table, by a model fitted to labels.

    The values of each AU are calibrated by `PlattScaling`, and `ChainInference` couples the AUs of
    a frame and the frames of a track. Calibration, couplings and costs of change are fitted to the
    labeled frames; the factor of the evidence, which frames alike make necessary, is the best of
    `TEMPERS` on people that were held out.

    Args:
        table: values of a tool.
        labels: labels of some of its people and frames, matched by person, condition and frame.
        folds: parts into which people are divided; each is held out once.
        seed: of the division.

    Raises:
        ValueError: no AU or frame is in both tables, or fewer than two people have labels.
    """
    names = [name for name in table.aus.names if name in labels.aus.names]
    if not names:
        raise ValueError("labels must have an AU of the table, got none in common")
    aus = AUSet.of(names)
    known = matched(table, labels, names)
    scores = evidence_scores(table, names)
    labeled = np.asarray((known >= 0).any(1), dtype=np.bool_)
    people = sorted(set(table.person[labeled].tolist()))
    if len(people) < 2:
        raise ValueError(
            "labels must be of at least 2 people of the table, to hold some out, got "
            f"{len(people)} (matched by person, condition and frame)"
        )
    data = _Labeled(table, scores, known, labeled)
    parts = divided(people, min(folds, len(people)), seed)
    alone, coupled = _held_out(data, people, parts)
    total = coupled.sum(1)
    chosen = np.zeros(len(people), dtype=np.int64)
    for part in parts:
        own = [people.index(name) for name in part]
        chosen[own] = np.argmax(total - coupled[:, own].sum(1))
    final = _Model.fitted(table, scores, known, labeled)
    temper = TEMPERS[int(np.argmax(total))]
    frames = np.array([((table.person == name) & labeled).sum() for name in people])
    return Smoothing(
        aus,
        final.probabilities(table, scores, temper),
        temper,
        tuple(people),
        frames,
        alone,
        coupled[chosen, np.arange(len(people))],
    )


class _Labeled(NamedTuple):
    """A table, its scores (M, N), the labels of its rows, and which rows have any."""

    table: AUTable
    scores: Floats
    known: NDArray[np.int8]
    labeled: NDArray[np.bool_]


def _held_out(
    data: _Labeled, people: Sequence[str], parts: Sequence[Sequence[str]]
) -> tuple[Floats, Floats]:
    """Return log-likelihoods of people whose part was held out: alone (P,), coupled (K, P)."""
    table, scores, known, labeled = data
    alone, coupled = np.zeros(len(people)), np.zeros((len(TEMPERS), len(people)))
    for part in parts:
        held = np.asarray(np.isin(table.person, part), dtype=np.bool_)
        model = _Model.fitted(table, scores, known, np.asarray(labeled & ~held))
        for name in part:
            index, own = people.index(name), table.person == name
            rows = np.flatnonzero(own & labeled)
            alone[index] = model.log_likelihood_alone(scores[rows], known[rows])
            for number, temper in enumerate(TEMPERS):
                coupled[number, index] = model.log_likelihood(
                    table, scores, known, np.flatnonzero(own), temper
                )
    return alone, coupled


def matched(table: AUTable, labels: AUTable, names: Sequence[str]) -> NDArray[np.int8]:
    """Return the labels of the rows of `table`, (M, N), -1 where there are none.

    Raises:
        ValueError: no row has a label.
    """
    columns = [labels.aus.names.index(name) for name in names]
    rows = {
        key: row
        for row, key in enumerate(zip(labels.person, labels.condition, labels.frame, strict=True))
    }
    found = np.array(
        [rows.get(key, -1) for key in zip(table.person, table.condition, table.frame, strict=True)],
        dtype=np.int64,
    )
    known = np.where((found >= 0)[:, None], labels.labels[found][:, columns], -1)
    if not (known >= 0).any():
        raise ValueError(
            "labels must be of frames of the table, matched by person, condition and frame; got "
            f"people {_some(labels.person)} there and {_some(table.person)} in the table"
        )
    return known.astype(np.int8)


def evidence_scores(table: AUTable, names: Sequence[str]) -> Floats:
    """Return the values, (M, N): logits of probabilities, other values as they are."""
    values = table.values[:, [table.aus.names.index(name) for name in names]]
    if {account.kind for account in table.accounts} == {"probability"}:
        inside = np.clip(values, _CERTAIN, 1 - _CERTAIN)
        return np.log(inside / (1 - inside))
    return values


def divided(people: Sequence[str], parts: int, seed: int) -> list[list[str]]:
    """Return the people in so many parts of about equal size, at random."""
    order = np.random.default_rng(seed).permutation(len(people))
    return [[people[index] for index in order[start::parts]] for start in range(parts)]


@dataclass(frozen=True)
class _Model:
    """Calibration of each AU, the chain that couples them, and its log-odds without evidence."""

    calibration: PlattScaling
    chain: ChainInference
    prior: Tensor

    @classmethod
    def fitted(
        cls, table: AUTable, scores: Floats, known: NDArray[np.int8], rows: NDArray[np.bool_]
    ) -> _Model:
        count = known.shape[1]
        calibration, chain = PlattScaling(count).double(), ChainInference(count).double()
        own = np.where(np.isnan(scores), -1, known)
        calibration.fit(_tensor(scores[rows]), torch.from_numpy(own[rows]))
        chain.fit_labels([torch.from_numpy(known[run]) for run in runs(table) if rows[run].any()])
        with torch.no_grad():
            prior = chain(torch.zeros(1, 1, count, dtype=torch.float64))[0, 0]
        return cls(calibration, chain, prior)

    @torch.no_grad()
    def evidence(self, scores: Floats, temper: float) -> Tensor:
        """Return calibrated logits less the log-odds of the chain itself, 0 without a value."""
        return temper * (self.calibration(_tensor(scores)) - self.prior).nan_to_num(nan=0.0)

    @torch.no_grad()
    def log_likelihood_alone(self, scores: Floats, known: NDArray[np.int8]) -> float:
        logits = self.calibration(_tensor(scores))
        logits = logits.where(logits.isfinite(), self.prior)
        labels = torch.from_numpy(known)
        signed = torch.where(labels == 1, logits, -logits)
        return float(torch.nn.functional.logsigmoid(signed).where(labels >= 0, 0).sum())

    @torch.no_grad()
    def log_likelihood(
        self,
        table: AUTable,
        scores: Floats,
        known: NDArray[np.int8],
        rows: NDArray[np.int64],
        temper: float,
    ) -> float:
        total = 0.0
        for track in np.unique(table.track[rows]):
            own = rows[table.track[rows] == track]
            gaps = torch.from_numpy(np.diff(table.frame[own]).astype(np.float64))
            logits = self.evidence(scores[own], temper)[None]
            labels = torch.from_numpy(known[own])[None]
            total += float(self.chain.log_likelihood(logits, labels, gaps=gaps))
        return total

    @torch.no_grad()
    def probabilities(self, table: AUTable, scores: Floats, temper: float) -> Floats:
        """Return the smoothed probabilities of all rows."""
        tracks, frames = (
            torch.from_numpy(np.ascontiguousarray(v)) for v in (table.track, table.frame)
        )
        logits = self.chain.smooth_tracks(self.evidence(scores, temper), tracks, frames)
        return logits.sigmoid().numpy()


def runs(table: AUTable) -> list[NDArray[np.int64]]:
    """Return the rows of each run of consecutive frames of a track."""
    breaks = (np.diff(table.track) != 0) | (np.diff(table.frame) != 1)
    return np.split(np.arange(len(table)), np.flatnonzero(breaks) + 1)


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))


def _some(names: NDArray[np.str_]) -> str:
    found = sorted(set(names.tolist()))
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
