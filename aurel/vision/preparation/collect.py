"""Collect the records of all inputs: the table of frames, the lists, and the samples of shards."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.data.owners.layout import OwnerLayout
from aurel.data.owners.table import FrameTable
from aurel.data.shard_files import Sample
from aurel.files import atomic_path
from aurel.vision.manifest import KEPT, Outcome
from aurel.vision.prediction_table import BOX_COLUMNS
from aurel.vision.preparation.records import Row, points_of, read_record

FRAMES = "frames.csv"
NO_PICTURE = "there is no picture"
MEDIA = "faces"
"""Name in the lists and shards of chips that are of no data set."""

_COLUMNS = ("input", "frame", "time", "path", "person", *BOX_COLUMNS, "FaceScore", "landmarks")


@dataclass(frozen=True)
class Entry:
    """A chip.

    Args:
        key: its path in the folder of the chips, without suffix.
        person: the person.
        points: (5, 2) points of the detector in the chip, or None.
        landmarks: (49, 2) in the chip, or None.
        labels: (N,) 1 present, 0 absent, -1 unknown; None where there are no labels.
        intensity: (N,) 0 to 5, -1 unknown; None where there is none.
    """

    key: str
    person: str
    points: NDArray[np.float32] | None
    landmarks: NDArray[np.float32] | None
    labels: tuple[int, ...] | None = None
    intensity: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Part:
    """The chips of a part of a data set, in the order of its list.

    Args:
        split: "train" or "test".
        fold: number of the fold, or None.
        entries: the chips.
    """

    split: str
    fold: int | None
    entries: Sequence[Entry]


def media_entries(out: Path, outcomes: Iterable[Outcome]) -> list[Entry]:
    """Return the chips of photographs and videos."""
    return [
        _entry(row, f"{outcome.name}/{row['person']}")
        for outcome in outcomes
        if outcome.status in KEPT
        for row in read_record(out, outcome.name)
        if "key" in row
    ]


def table_entries(
    out: Path, table: FrameTable, outcomes: Mapping[str, Outcome]
) -> list[Entry | None]:
    """Return the chip of each row of a table, None where there is none."""
    entries: list[Entry | None] = []
    for rows in videos_of(table):
        outcome = outcomes.get(table.videos[rows[0]])
        kept = outcome is not None and outcome.status in KEPT
        record = read_record(out, table.videos[rows[0]]) if kept else []
        chips = {row["frame"]: row for row in record if "key" in row}
        for row in rows:
            chip = chips.get(int(table.numbers[row]))
            entries.append(None if chip is None else _labeled(chip, table, row))
    return entries


def folds_of(table: FrameTable, owner: OwnerLayout, entries: Sequence[Entry | None]) -> list[Part]:
    """Return the parts of all folds."""
    parts = []
    for fold in range(1, owner.folds + 1):
        tested = owner.tested(table, fold)
        for split in ("train", "test"):
            rows = np.flatnonzero(tested == (split == "test")).tolist()
            chips = [entry for row in rows if (entry := entries[row]) is not None]
            parts.append(Part(split, fold, chips))
    return parts


def videos_of(table: FrameTable) -> Iterator[range]:
    """Yield the rows of each video of a table."""
    start = 0
    for row in range(1, len(table) + 1):
        if row == len(table) or table.videos[row] != table.videos[start]:
            yield range(start, row)
            start = row


def write_frames(
    out: Path, outcomes: Iterable[Outcome], missing: Iterable[str], suffix: str
) -> None:
    """Write the table of all frames: each face with its chip, and each frame without a chip.

    Args:
        out: folder of the results.
        outcomes: the inputs, in order.
        missing: names of frames of a data set without a picture.
        suffix: of the chips.
    """
    with (
        atomic_path(out / FRAMES) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*_COLUMNS, "reason"])
        for outcome in outcomes:
            for row in read_record(out, outcome.name) if outcome.status in KEPT else ():
                table.writerow([outcome.input, *_cells(row, suffix)])
        for name in missing:
            video, _, number = name.rpartition("/")
            table.writerow([video, number, *[""] * (len(_COLUMNS) - 2), NO_PICTURE])


def write_lists(
    folder: Path, name: str, part: Part, suffix: str, codes: Mapping[int, str] | None = None
) -> None:
    """Write the lists of a part in the form that `aurel.data.ListDataset` reads.

    They are a list of paths, and where they are known, of labels, intensities and landmarks.

    Args:
        folder: folder of the lists.
        name: name of the data set, with which the names of the lists begin.
        part: the part.
        suffix: of the chips.
        codes: the code of each label; None for the label itself.
    """
    end = "" if part.fold is None else f"_fold{part.fold}"
    entries = part.entries
    columns: dict[str, list[str]] = {"img_path": [f"{entry.key}.{suffix}" for entry in entries]}
    if all(entry.labels is not None for entry in entries):
        columns["label"] = [_codes(entry.labels, codes) for entry in entries]
    if all(entry.intensity is not None for entry in entries):
        columns["intensity"] = [_codes(entry.intensity, None) for entry in entries]
    if any(entry.landmarks is not None for entry in entries):
        columns["landmark"] = [_coordinates(entry.landmarks) for entry in entries]
    for kind in ("img_path", "label", "intensity", "landmark"):
        path = folder / f"{name}_{part.split}_{kind}{end}.txt"
        if kind not in columns or not entries:
            path.unlink(missing_ok=True)
            continue
        with atomic_path(path) as temporary:
            temporary.write_bytes("".join(f"{line}\n" for line in columns[kind]).encode())


def samples(
    entries: Iterable[Entry], images: Path, suffix: str, aus: Sequence[str]
) -> list[Sample]:
    """Return the samples of shards.

    Args:
        entries: the chips.
        images: folder of the chips.
        suffix: of the chips.
        aus: names of the AUs of the labels.
    """
    return [
        Sample(
            entry.key,
            images / f"{entry.key}.{suffix}",
            {
                "person": entry.person,
                "aus": list(aus),
                "labels": None if entry.labels is None else list(entry.labels),
                "intensity": None if entry.intensity is None else list(entry.intensity),
                "landmarks": _plain(entry.landmarks),
                "points": _plain(entry.points),
            },
        )
        for entry in entries
    ]


def _entry(row: Row, person: str) -> Entry:
    return Entry(row["key"], person, points_of(row["points"]), points_of(row["landmarks"]))


def _labeled(chip: Row, table: FrameTable, row: int) -> Entry:
    entry = _entry(chip, table.people[row])
    labels = tuple(table.labels[row].tolist())
    intensity = None if table.intensity is None else tuple(table.intensity[row].tolist())
    return Entry(entry.key, entry.person, entry.points, entry.landmarks, labels, intensity)


def _cells(row: Row, suffix: str) -> list[object]:
    if "key" not in row:
        return [row["frame"], row["time"], *[""] * (len(_COLUMNS) - 3), row["reason"]]
    score = "" if row["score"] is None else row["score"]
    path = f"{row['key']}.{suffix}"
    return [row["frame"], row["time"], path, row["person"], *row["box"], score, row["by"], ""]


def _codes(values: Sequence[int] | None, codes: Mapping[int, str] | None) -> str:
    return " ".join(str(value) if codes is None else codes[value] for value in values or ())


def _coordinates(points: NDArray[np.float32] | None) -> str:
    if points is None:
        points = np.full((49, 2), np.nan, dtype=np.float32)
    return " ".join(f"{value:.3f}" for value in points.ravel().tolist())


def _plain(points: NDArray[np.float32] | None) -> list[list[float | None]] | None:
    if points is None:
        return None
    return [
        [round(value, 3) if np.isfinite(value) else None for value in point]
        for point in points.tolist()
    ]
