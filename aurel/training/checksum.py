"""A checksum of the people and labels of each part, by which two runs can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, Subset

from aurel.data.base import AUDataset
from aurel.training.data_module import Splits

_LENGTH = 16


def split_checksum(splits: Splits) -> str:
    """Return a checksum of training, validation and test part.

    It depends on the people of each part, and for each of them on the number of known labels of
    each AU and on their sum. Clips and single images of the same frames, and any order of them,
    have the same one.
    """
    parts = (splits.train, splits.validation, splits.test)
    return _digest([_counts(part) for part in parts])


def part_checksum(data: Dataset[Any]) -> str:
    """Return the checksum of one part, such as the test part."""
    return _digest(_counts(data))


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _counts(data: Dataset[Any] | None) -> Any:
    """Return for each person the number of known labels of each AU, and their sum."""
    if data is None:
        return None
    whole, indices = (data.dataset, data.indices) if isinstance(data, Subset) else (data, None)
    people: Sequence[Any] = getattr(whole, "subjects", ())
    if not isinstance(whole, AUDataset):
        return sorted(map(str, people))
    items: dict[str, list[int]] = {}
    for index in range(len(people)) if indices is None else indices:
        items.setdefault(str(people[index]), []).append(index)
    counts = {}
    for person, own in items.items():
        labels = whole.labels_of(own)
        known, levels = labels >= 0, labels.clamp(min=0)
        counts[person] = [known.sum(0).tolist(), levels.sum(0).tolist()]
    return {"aus": list(whole.aus.names), "people": counts}
