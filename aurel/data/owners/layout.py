"""The description of an owner's layout, and the part of a table that a fold trains or tests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.table import FrameTable
from aurel.data.subjects import normalized_subject
from aurel.facs import AUSet, fold_split


@dataclass(frozen=True)
class OwnerRequest:
    """The argument of a reader.

    Args:
        root: folder of the data set.
        found: the annotation that `OwnerLayout.find` found.
        aus: the AUs of the columns.
        images: folder of the pictures; None for a place where the owner has them, or aligned faces.
        options: rules of the labels.
    """

    root: Path
    found: Path
    aus: AUSet
    images: Path | None = None
    options: OwnerOptions = field(default_factory=OwnerOptions)


Tested = Callable[[FrameTable, int], NDArray[np.bool_]]


@dataclass(frozen=True)
class OwnerLayout:
    """A data set in the layout in which its owner sends it.

    Args:
        tree: the files, for the documentation.
        find: returns the annotations that a folder holds: none for another layout, several where
            the user must choose.
        read: returns the table of all frames.
        tested: returns which rows of the table a fold, counted from 1, tests; see `published` and
            `seeded`.
        folds: number of folds.
        parts: how the folds come about, for the header of a run and the documentation.
    """

    tree: str
    find: Callable[[Path], list[Path]]
    read: Callable[[OwnerRequest], FrameTable]
    tested: Tested
    folds: int
    parts: str

    def annotation(self, root: Path) -> Path | None:
        """Return the annotation in a folder, or None.

        Raises:
            ValueError: there are several, which the message names.
        """
        found = self.find(root) if root.is_dir() else []
        if len(found) > 1:
            names = " and ".join(str(path) for path in found)
            raise ValueError(f"data.root must hold one annotation, got {names}")
        return found[0] if found else None


def published(dataset: str) -> Tested:
    """Return the rule of the published folds of `dataset`, `aurel.facs.fold_split`.

    It raises ValueError for a person who is in no fold.
    """

    def tested(table: FrameTable, fold: int) -> NDArray[np.bool_]:
        train, test = (set(map(normalized_subject, p)) for p in fold_split(dataset, fold))
        people = {person: normalized_subject(person) for person in set(table.people)}
        other = sorted(person for person, name in people.items() if name not in train | test)
        if other:
            raise ValueError(
                f"people must be those of the published folds of {dataset}, got {', '.join(other)}"
            )
        return np.array([people[person] in test for person in table.people])

    return tested


def seeded(folds: int) -> Tested:
    """Return a rule for data without published folds: `folds` parts of people, the same each time.

    Fold f tests part f of a permutation of the sorted people, whose seed is 0. Parts differ by one
    person at most.
    """

    def tested(table: FrameTable, fold: int) -> NDArray[np.bool_]:
        people = sorted(set(table.people), key=normalized_subject)
        if len(people) < folds:
            raise ValueError(f"people must be at least {folds}, one for each fold, got {people}")
        order = np.random.default_rng([0, len(people)]).permutation(len(people))
        test = {people[index] for index in np.array_split(order, folds)[fold - 1]}
        return np.array([person in test for person in table.people])

    return tested


def shuffled_rows(folds: int = 3, seed: int = 42) -> Tested:
    """Return the rule of scikit-learn's ``KFold(folds, shuffle=True, random_state=seed)``.

    The code of MACG divides the rows of EmotioNet's sheet so; its fold f tests part ``folds + 1 -
    f``. `FrameTable.numbers` are the rows of the sheet, `FrameTable.listed` their number.
    """

    def tested(table: FrameTable, fold: int) -> NDArray[np.bool_]:
        order = np.arange(table.listed)
        np.random.RandomState(seed).shuffle(order)
        part = np.array_split(order, folds)[folds - fold]
        return np.isin(table.numbers.numpy(), part)

    return tested
