"""Splits in which no person is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

Subject = TypeVar("Subject", str, int)


def hold_out(
    subjects: Sequence[Subject], share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Hold out a share of the people, all images of each.

    Args:
        subjects: who is in each image.
        share: of the people, in (0, 1); at least one is held out and at least one is kept.
        seed: which people; the same for any order of the images.

    Returns:
        Indices of the images that are kept, and of those held out.

    Raises:
        ValueError: `share` is out of range, or there are fewer than two people.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    people = sorted(set(subjects))
    if len(people) < 2:
        raise ValueError(f"to hold out a person takes at least two, got {len(people)}")
    count = min(max(round(share * len(people)), 1), len(people) - 1)
    order = np.random.default_rng([seed, len(people)]).permutation(len(people))
    held = {people[index] for index in order[:count]}
    kept = [index for index, subject in enumerate(subjects) if subject not in held]
    return kept, [index for index, subject in enumerate(subjects) if subject in held]


def check_apart(train: Iterable[str], test: Iterable[str], what: str) -> None:
    """Raise where a person of `train` is in `test` too.

    Raises:
        ValueError: names the people.
    """
    both = sorted(set(train) & set(test))
    if both:
        some = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
        raise ValueError(f"{what}: {len(both)} people are on both sides ({some})")
