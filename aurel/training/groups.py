"""Scores of groups of people, by a table of their attributes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from aurel.data.subjects import normalized_subject
from aurel.data.text import read_text

UNKNOWN = "unknown"


class PeopleData(Protocol):
    """A data set with the person of each item."""

    subjects: Sequence[Any]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Group:
    """The people with one value of an attribute.

    Args:
        attribute: a column of the table, such as "sex".
        value: a value in it, or "unknown".
        people: the people of the test part in this group, as the data set names them.
    """

    attribute: str
    value: str
    people: frozenset[str]


class GroupedData(Dataset[dict[str, Any]]):
    """The items of a data set, with ``groups`` (G,) bool: the groups that its person is in."""

    def __init__(self, data: PeopleData, groups: Sequence[Group]) -> None:
        self.data = data
        self.subjects = data.subjects
        self._member = {
            str(person): torch.tensor([str(person) in group.people for group in groups])
            for person in set(data.subjects)
        }

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.data[index], "groups": self._member[str(self.subjects[index])]}


def read_groups(path: Path, subjects: Sequence[Any], dataset: str = "") -> list[Group]:
    """Return the groups of the people of a test part, attribute by attribute.

    Args:
        path: CSV file with a header; the first column is the person, each other one an attribute.
        subjects: the person of each item of the test part; people without a row, or with an empty
            cell, are in the group "unknown". Spellings such as F001 and f1 are one person.
        dataset: name before a person in the file, as in "BP4D/F001", which may be left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no attribute, a row of another length, a person twice, or none of the people
            of the test part.
    """
    attributes, rows = _read(path)
    people = sorted({str(person) for person in subjects})
    of = {person: _row_of(person, rows, dataset) for person in people}
    if not any(of.values()):
        raise ValueError(
            f"{path} must have a row for people of the test part, such as {people[0]}, got none"
        )
    groups = []
    for column, attribute in enumerate(attributes):
        values = {person: (row[column] if row else "") or UNKNOWN for person, row in of.items()}
        for value in sorted(set(values.values()), key=lambda v: (v == UNKNOWN, v)):
            members = frozenset(person for person in people if values[person] == value)
            groups.append(Group(attribute, value, members))
    return groups


def in_group(labels: Tensor, groups: Tensor, index: int) -> Tensor:
    """Return the labels, with -1 for the items of people outside a group.

    Args:
        labels: (B, N), of clips (B, T, N).
        groups: (B, G) bool.
        index: of the group.
    """
    outside = ~groups[:, index].reshape(-1, *[1] * (labels.dim() - 1))
    return labels.masked_fill(outside, -1)


def group_report(
    groups: Sequence[Group], scores: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    """Return the F1 of each group, and the gaps between the groups of each attribute.

    A gap is the highest F1 minus the lowest one, over the groups with a value of the attribute, NaN
    where one of them has no score. That of the mean is over the AUs that are known in all groups.

    Args:
        groups: from `read_groups`.
        scores: the table of `AUScores` for each group.
    """
    report: dict[str, Any] = {}
    for group, table in zip(groups, scores, strict=True):
        f1 = {name: row["f1"] for name, row in table.items()}
        known = {name: int(row["known"]) for name, row in table.items() if name != "mean"}
        entry = {"people": len(group.people), "known": known, "f1": f1}
        report.setdefault(group.attribute, {"groups": {}})["groups"][group.value] = entry
    for attribute in report.values():
        tables = [e["f1"] for value, e in attribute["groups"].items() if value != UNKNOWN]
        attribute["gap"] = _gaps(tables)
    return report


def _gaps(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(tables) < 2:
        return {}
    names = [name for name in tables[0] if name != "mean"]
    shared = [name for name in names if not any(math.isnan(table[name]) for table in tables)]
    gaps = {name: math.nan for name in names}
    for name in shared:
        values = [table[name] for table in tables]
        gaps[name] = max(values) - min(values)
    means = [sum(table[name] for name in shared) / len(shared) for table in tables if shared]
    return {**gaps, "mean": max(means) - min(means) if means else math.nan}


def _row_of(person: str, rows: Mapping[str, list[str]], dataset: str) -> list[str] | None:
    names = map(normalized_subject, (person, f"{dataset}/{person}"))
    return next((rows[name] for name in names if name in rows), None)


def _read(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the attributes, and the values of each person."""
    text = io.StringIO(read_text(path), newline="")
    lines = [(n, row) for n, row in enumerate(csv.reader(text), 1) if any(row)]
    if not lines or len(lines[0][1]) < 2:
        raise ValueError(f"{path} must have a header with a person and attributes, got none")
    header = [name.strip() for name in lines[0][1]]
    rows: dict[str, list[str]] = {}
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {number} must have {len(header)} cells, as the header, got "
                f"{len(row)}"
            )
        person = normalized_subject(row[0])
        if person in rows:
            raise ValueError(f"{path}, line {number} must name a new person, got {row[0]} again")
        rows[person] = [cell.strip() for cell in row[1:]]
    return header[1:], rows
