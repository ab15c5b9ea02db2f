"""Splits of the data in which every subject is in one part only."""

from __future__ import annotations

import posixpath
import re
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
    """Return one spelling of the name of a subject, by which parts of the data are compared.

    ``F001``, ``f001``, ``F1``, ``./F001``, ``.//F001``, ``/F001``, ``img/../F001`` and
    ``/data/img/F001`` are one person, ``BP4D/F001`` and ``DISFA/F001`` two: of an absolute path the
    last part counts.

    Args:
        name: name of a subject, with or without the data set before it, or a path to a folder.
    """
    path = posixpath.normpath(name.replace("\\", "/").strip())
    if path.startswith("/"):
        path = posixpath.basename(path)
    parts = path.removeprefix("./").casefold().split("/")
    return "/".join(_without_zeros(part) for part in parts)


def one_spelling(names: Sequence[str]) -> list[str]:
    """Return `names` with each subject in the spelling in which it appears first."""
    first: dict[str, str] = {}
    return [first.setdefault(normalized_subject(name), name) for name in names]


def check_apart(train: Iterable[str], test: Iterable[str], parts: str) -> None:
    """Raise ValueError, which names the subjects, where any of `train` is in `test` too.

    Names are compared as `normalized_subject` writes them.
    """
    spelled = {normalized_subject(name): name for name in set(train)}
    both = sorted({name for name in set(test) if normalized_subject(name) in spelled})
    if both:
        names = ", ".join(_both_spellings(spelled[normalized_subject(n)], n) for n in both[:5])
        more = ", ..." if len(both) > 5 else ""
        raise ValueError(f"{parts} must have no subject in common, got {len(both)} ({names}{more})")


def _without_zeros(part: str) -> str:
    """Return "f1" for "f001"; other forms are unchanged."""
    match = re.fullmatch(r"([^\W\d_]*)0*(\d+)", part)
    return part if match is None else match[1] + match[2]


def _both_spellings(trained: str, tested: str) -> str:
    return tested if trained == tested else f"{trained} = {tested}"
