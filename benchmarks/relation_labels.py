"""Label tables for the benchmark of relations: embedded worlds, and files of the user."""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aurel.data.synthetic import label_world
from aurel.data.synthetic.label_model import all_states
from aurel.facs import AUSet

ROWS = 40_000
"""Rows of the training table and of the test table of an embedded world."""
TEST_SHARE = 1 / 3
"""Share of the groups, or of the rows, of a file that are held out for the test."""
_COLUMN = re.compile(r"AU0*(\d+)(_c)?", re.IGNORECASE)


@dataclass(frozen=True)
class LabelTable:
    """Labels for training and test, and the joint distribution that the bounds assume.

    Args:
        name: of the world or the file.
        aus: the AUs, N of them.
        train: training labels, (M, N), 0. or 1.
        test: test labels, (M', N).
        states: the label vectors with a positive probability, (S, N).
        probabilities: of these, (S,), float64.
        couplings: J of the pairwise model of the labels, (N, N), where it is known.
    """

    name: str
    aus: AUSet
    train: Tensor
    test: Tensor
    states: Tensor
    probabilities: Tensor
    couplings: Tensor | None = None


def world_table(name: str, seed: int, rows: int = ROWS) -> LabelTable:
    """Return independent samples from an embedded label world; its law is the joint."""
    world = label_world(name)
    numbers = np.random.default_rng(seed).random(2 * rows)
    train, test = torch.from_numpy(world.sample(numbers)).float().split(rows)
    return LabelTable(
        name,
        AUSet.of(world.aus),
        train,
        test,
        torch.from_numpy(all_states(len(world.aus))).float(),
        torch.from_numpy(world.probabilities),
        torch.from_numpy(world.couplings),
    )


def file_table(path: Path, groups: str | None, seed: int) -> LabelTable:
    """Return a CSV file of labels, split; the joint is the empirical one of the training rows.

    Args:
        path: a header, then a row for each frame. Columns AU01, AU1 or AU01_c hold 0 or 1, and
            -1, 9 or nothing where the label is unknown: such rows are left out. So are the columns
            of AUs that are never or always active. Test rows are repeated, for other evidence in
            each, to 40,000 at least.
        groups: the column that names the subject. A third of the subjects is held out; None holds
            out a third of the rows, which in a video resemble those that are kept.
        seed: chooses what is held out.

    Raises:
        ValueError: a column is missing, or a label is neither 0, 1 nor unknown.
    """
    names, labels, subjects = read_labels(path, groups)
    mixed = (labels.mean(0) > 0) & (labels.mean(0) < 1)
    if not mixed.all():
        absent = [name for name, keep in zip(names, mixed, strict=True) if not keep]
        print(f"{path}: left out, for they never change: {', '.join(absent)}", file=sys.stderr)
    names = [name for name, keep in zip(names, mixed, strict=True) if keep]
    unique, group = np.unique(subjects, return_inverse=True)
    if len(unique) < 3 or len(names) < 2:
        raise ValueError(
            f"{path} must hold 2 AUs that change and 3 groups, got {len(names)} and {len(unique)}"
        )
    order = np.random.default_rng(seed).permutation(len(unique))
    held_out = np.isin(group, order[: round(TEST_SHARE * len(unique))])
    known = torch.from_numpy(labels[:, mixed])
    test = torch.from_numpy(held_out)
    repeats = -(-ROWS // int(test.sum()))
    states, counts = known[~test].unique(dim=0, return_counts=True)
    return LabelTable(
        path.stem,
        AUSet.of(names),
        known[~test],
        known[test].repeat(repeats, 1),
        states,
        counts.double() / counts.sum(),
    )


def read_labels(path: Path, groups: str | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of the AUs, known labels (M, N) and the group of each row, (M,)."""
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        columns = [index for index, name in enumerate(header) if _COLUMN.fullmatch(name)]
        if not columns:
            raise ValueError(f"{path} must have columns such as AU01, got {', '.join(header)}")
        if groups is not None and groups not in header:
            raise ValueError(f"groups must be a column of {path}, got {groups!r}")
        labels: list[list[int]] = []
        subjects: list[int | str] = []
        for cells in reader:
            if len(cells) != len(header):
                raise ValueError(
                    f"{path}:{reader.line_num} must have {len(header)} cells, got {len(cells)}"
                )
            row = [_label(cells[index], path, reader.line_num) for index in columns]
            if -1 not in row:
                labels.append(row)
                subjects.append(len(subjects) if groups is None else cells[header.index(groups)])
    names = [header[index].removesuffix("_c") for index in columns]
    return names, np.array(labels, np.float32).reshape(-1, len(columns)), np.array(subjects)


def _label(cell: str, path: Path, line: int) -> int:
    known = {"0": 0, "1": 1, "-1": -1, "9": -1, "": -1}
    text = cell.strip().removesuffix(".0")
    if text not in known:
        raise ValueError(f"{path}:{line}: a label must be 0, 1, -1, 9 or empty, got {cell!r}")
    return known[text]


def permuted(table: LabelTable, seed: int) -> LabelTable:
    """Return the table with each AU's labels in an order of their own: rates without relations."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(labels: Tensor) -> Tensor:
        order = torch.rand(labels.shape, generator=generator).argsort(0)
        return labels.gather(0, order)

    return replace(table, train=shuffle(table.train), test=shuffle(table.test))


def correlations(labels: Tensor) -> Tensor:
    """Return phi, the correlation of each two AUs, (N, N)."""
    return torch.corrcoef(labels.double().T)
