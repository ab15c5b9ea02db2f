"""A report on the data of a run, before it trains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aurel.data.base import AUDataset
from aurel.data.subjects import normalized_subject
from aurel.facs import FOLDS, AUSet, fold_split
from aurel.training.checksum import items_of, split_checksum
from aurel.training.data_module import Splits

_SHOWN = 3


@dataclass(frozen=True)
class PartReport:
    """Numbers of one part of the data.

    Args:
        name: "train", "validation" or "test".
        items: number of images, clips or triplets.
        people: the subjects, with the data set in their names.
        present: (N,) number of labels above 0 of each AU.
        known: (N,) number of labels that are not -1.
        pictures: number of pictures.
        missing: pictures that do not exist.
    """

    name: str
    items: int
    people: list[str]
    present: Tensor
    known: Tensor
    pictures: int = 0
    missing: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class DataReport:
    """The data of a run in numbers.

    Args:
        aus: the AUs of the labels.
        parts: the parts that there are.
        checksum: see `split_checksum`; empty for triplets.
        layout: where labels and pictures are.
        notes: remarks of the reader.
        errors: reasons not to train on these data.
    """

    aus: AUSet
    parts: list[PartReport]
    checksum: str
    layout: str
    notes: list[str]
    errors: list[str]

    def __str__(self) -> str:
        lines = [f"layout      {self.layout}"] if self.layout else []
        if self.checksum:
            lines.append(f"split       {self.checksum}")
        lines += [_part_line(part) for part in self.parts]
        if not any(part.name == "test" for part in self.parts):
            lines.append("test        none")
        if self.checksum:
            lines += _label_lines(self.aus, self.parts)
        lines += [f"note        {note}" for note in self.notes]
        return "\n".join(lines)

    def check(self) -> None:
        """Raise ValueError with the `errors`, if there are any."""
        if self.errors:
            raise ValueError("; ".join(self.errors))


def data_report(splits: Splits) -> DataReport:
    """Return the report on the data of a run.

    It looks for every picture, once for each folder, and reads none.
    """
    protocol = splits.protocol or {}
    datasets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    if splits.validation is splits.test:
        del datasets["validation"]
    parts, notes, errors, layout = [], [], [], ""
    for name, part in datasets.items():
        if part is None:
            continue
        data, items = items_of(part)
        people = protocol.get(f"{name}_subjects", [])
        report = _part_report(name, data, items, people, len(splits.aus))
        parts.append(report)
        layout = layout or data.layout
        notes += [note for note in data.notes if note not in notes]
        errors += [error for error in _errors(report, data) if error not in errors]
    notes += _other_people(protocol)
    labeled = isinstance(items_of(splits.train)[0], AUDataset)
    checksum = split_checksum(splits) if labeled else ""
    return DataReport(splits.aus, parts, checksum, layout, notes, errors)


def missing_pictures(pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures that do not exist; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for picture in pictures:
        folder, name = os.path.split(picture)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            missing.append(picture)
    return missing


def _part_report(
    name: str, data: Any, items: list[int], people: list[str], num_aus: int
) -> PartReport:
    if not isinstance(data, AUDataset):
        return PartReport(name, len(items), people, torch.zeros(num_aus), torch.zeros(num_aus))
    labels = data.labels_of(items)
    pictures = [] if data.unready else data.pictures_of(items)
    return PartReport(
        name,
        len(items),
        people,
        (labels > 0).sum(0),
        (labels >= 0).sum(0),
        len(pictures),
        missing_pictures(pictures),
    )


def _errors(part: PartReport, data: Any) -> list[str]:
    errors = []
    if part.missing:
        first = ", ".join(map(str, part.missing[:_SHOWN]))
        more = ", ..." if len(part.missing) > _SHOWN else ""
        errors.append(
            f"{len(part.missing)} of {part.pictures} {part.name} images do not exist: {first}{more}"
        )
    if isinstance(data, AUDataset) and data.unready:
        errors.append(data.unready)
    return errors


def _other_people(protocol: dict[str, Any]) -> list[str]:
    """Return where the people differ from those of the published fold of the data set."""
    dataset, fold = str(protocol.get("dataset")), protocol.get("fold")
    if dataset not in FOLDS or fold is None:
        return []
    found = {
        "train": protocol.get("train_subjects", []) + protocol.get("validation_subjects", []),
        "test": protocol.get("test_subjects", []),
    }
    notes = []
    for (name, people), published in zip(found.items(), fold_split(dataset, fold), strict=True):
        present = {normalized_subject(person.rpartition("/")[2]) for person in people}
        absent = [person for person in published if normalized_subject(person) not in present]
        others = len(present) - (len(published) - len(absent))
        if absent or others:
            notes.append(
                f"the {name} part is not that of the published fold: it lacks {len(absent)} of "
                f"{len(published)} people{_names(absent)}, and has {others} others"
            )
    return notes


def _names(people: Sequence[str]) -> str:
    """Return " (F001, F002, ...)", or nothing for no people."""
    shown = ", ".join(people[:_SHOWN]) + (", ..." if len(people) > _SHOWN else "")
    return f" ({shown})" if people else ""


def _part_line(part: PartReport) -> str:
    people = sorted({person.rpartition("/")[2] for person in part.people})
    shown = ", ".join(people[:_SHOWN]) + (", ..." if len(people) > _SHOWN else "")
    named = f", {len(people)} people: {shown}" if people else ""
    return f"{part.name:<11} {part.items} items{named}"


def _label_lines(aus: AUSet, parts: Sequence[PartReport]) -> list[str]:
    """Return a line for each AU: the rate of present labels, and the number of known ones."""
    head = "".join(f"  {part.name:>18}" for part in parts)
    lines = [f"{'rate, known':<11}{head}"]
    for index, name in enumerate(aus.names):
        cells = "".join(f"  {_rate(part, index):>18}" for part in parts)
        lines.append(f"{name:<11}{cells}")
    return lines


def _rate(part: PartReport, index: int) -> str:
    present, known = int(part.present[index]), int(part.known[index])
    return f"{present / known:.3f} {known:>8}" if known else f"none {known:>8}"
