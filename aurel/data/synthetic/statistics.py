"""Aggregate label statistics of three public data sets: rates, pairwise couplings, persistence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from aurel.data.synthetic.arrays import DoubleArray


@dataclass(frozen=True)
class LabelStatistics:
    """The pairwise model of a label list, and the persistence of its units.

    Args:
        name: "BP4D", "DISFA", "EmotioNet" or "all" (their union of 18 units).
        aus: the N action unit numbers.
        rates: occurrence rates, (N,).
        fields: h of the pairwise model, (N,).
        couplings: J, symmetric with a zero diagonal, (N, N).
        turn_on: P(1 at t + 1 | 0 at t) per frame, (N,); None for lists of single images.
        frozen: share of clips in which a unit does not change, (N,); None for single images.
    """

    name: str
    aus: tuple[int, ...]
    rates: DoubleArray
    fields: DoubleArray
    couplings: DoubleArray
    turn_on: DoubleArray | None = None
    frozen: DoubleArray | None = None


@cache
def label_statistics() -> dict[str, LabelStatistics]:
    """Return the statistics by name; `label_statistics.json` states their source."""
    text = (Path(__file__).parent / "label_statistics.json").read_text(encoding="utf-8")
    return {name: _parse(name, entry) for name, entry in json.loads(text)["sets"].items()}


def statistics_for(numbers: tuple[int, ...]) -> LabelStatistics:
    """Return the statistics of the smallest label set that contains all of `numbers`.

    Raises:
        ValueError: a unit is in no label set.
    """
    available = sorted(label_statistics().values(), key=lambda entry: len(entry.aus))
    for entry in available:
        if set(numbers) <= set(entry.aus):
            return entry
    union = label_statistics()["all"].aus
    missing = sorted(set(numbers) - set(union))
    raise ValueError(
        f"aus must be among {', '.join(map(str, union))} (the units that the synthetic faces "
        f"show), got {', '.join(map(str, missing))} as well"
    )


def _parse(name: str, entry: dict[str, list[float]]) -> LabelStatistics:
    count = len(entry["aus"])
    couplings = np.zeros((count, count))
    couplings[np.triu_indices(count, 1)] = entry["couplings"]
    return LabelStatistics(
        name=name,
        aus=tuple(int(au) for au in entry["aus"]),
        rates=np.array(entry["rates"]),
        fields=np.array(entry["fields"]),
        couplings=couplings + couplings.T,
        turn_on=np.array(entry["turn_on"]) if "turn_on" in entry else None,
        frozen=np.array(entry["frozen"]) if "frozen" in entry else None,
    )
