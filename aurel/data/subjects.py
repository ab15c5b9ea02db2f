"""Splits of the data in which every subject is in one part only."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

Subject = TypeVar("Subject", str, int)


def hold_out(
    subjects: Sequence[Subject], share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Return the indices of the images that are kept, and of those of the held-out subjects.

    Args:
        subjects: the subject of each image.
        share: share of the subjects to hold out, in (0, 1); at least one is held out, one kept.
        seed: seed of the choice of subjects, which does not depend on the order of the images.

    Raises:
        ValueError: `share` is out of range, or there are fewer than two subjects.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    people = sorted(set(subjects))
    if len(people) < 2:
        raise ValueError(f"subjects must be at least two to hold out one, got {len(people)}")
    count = min(max(round(share * len(people)), 1), len(people) - 1)
    order = np.random.default_rng([seed, len(people)]).permutation(len(people))
    held = {people[index] for index in order[:count]}
    kept = [index for index, subject in enumerate(subjects) if subject not in held]
    return kept, [index for index, subject in enumerate(subjects) if subject in held]


def normalized_subject(name: str) -> str:
    """Return the form in which the names of subjects are compared.

    Upper and lower case, doubled slashes, "." and ".." make no difference: "BP4D/F001",
    "BP4D/./f001" and "BP4D/img/../F001" are one subject.
    """
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/").casefold()


def one_spelling(names: Sequence[str]) -> list[str]:
    """Return `names` with each subject in the spelling in which it appears first."""
    first: dict[str, str] = {}
    return [first.setdefault(normalized_subject(name), name) for name in names]


def check_apart(train: Iterable[str], test: Iterable[str], parts: str) -> None:
    """Raise ValueError, which names the subjects, where any of `train` is in `test` too.

    Subjects are compared by `normalized_subject`.
    """
    tested = {normalized_subject(name) for name in test}
    both = sorted({name for name in train if normalized_subject(name) in tested})
    if both:
        names = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
        raise ValueError(f"{parts} must have no subject in common, got {len(both)} ({names})")
