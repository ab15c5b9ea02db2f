"""A checksum of the people, frames and labels of each part, by which two runs can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from torch.utils.data import Dataset, Subset

from aurel.data.base import AUDataset
from aurel.training.data_module import Splits

_LENGTH = 16


def split_checksum(splits: Splits) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of training, validation and test part.

    It depends on the frames of each part, named as `AUDataset.keys_of` does, and on their labels;
    of triplets, on the people. The order of lists, the folder of the pictures, and the division
    into clips do not change it.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    lines = (
        line for name, part in parts.items() if part is not None for line in (name, *_lines(part))
    )
    return _digest(lines)


def part_checksum(data: Dataset[Any]) -> str:
    """Return the checksum of one part, such as the test part."""
    return _digest(_lines(data))


def items_of(part: Any) -> tuple[Any, list[int]]:
    """Return the data set of a part, and the indices of the part in it."""
    if isinstance(part, Subset):
        return part.dataset, list(part.indices)
    return part, list(range(len(part)))


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:_LENGTH]


def _lines(part: Any) -> list[str]:
    """Return each frame with its labels, or each person of triplets, sorted."""
    data, items = items_of(part)
    if not isinstance(data, AUDataset):
        return sorted(map(str, data.subjects))
    rows = data.labels_of(items).tolist()
    keys = data.keys_of(items)
    return sorted({f"{key} {' '.join(map(str, row))}" for key, row in zip(keys, rows, strict=True)})
