"""The record of a run: what became of each input, so that a stopped run can go on."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from aurel.files import atomic_path

Status = Literal["done", "incomplete", "failed", "skipped"]

State: TypeAlias = tuple[int, int]
"""Size of an input in bytes, and the time of its last change in nanoseconds since 1970."""

KEPT = ("done", "incomplete")
"""Outcomes with results."""


def file_state(*paths: Path) -> State | None:
    """Return the state of files together, or None if one of them cannot be read."""
    try:
        found = [os.stat(path) for path in paths]
    except OSError:
        return None
    return sum(file.st_size for file in found), max(file.st_mtime_ns for file in found)


@dataclass(frozen=True)
class Outcome:
    """Result of one input, a row of the manifest.

    Args:
        input: its path as `shown` writes it.
        status: "done"; "incomplete": damaged, the rows that were read are kept; "failed": no rows;
            "skipped": neither a photograph nor a video.
        name: of its results, without suffix.
        frames: number of frames that were used.
        faces: number of faces in them.
        size: bytes of its files.
        modified: time of their last change, nanoseconds since 1970.
        settings: hash of the settings of the run.
        reason: of another status than "done".
    """

    input: str
    status: Status
    name: str
    frames: int = 0
    faces: int = 0
    size: int = 0
    modified: int = 0
    settings: str = ""
    reason: str = ""

    def is_current(self, state: State | None, settings: str) -> bool:
        """Return whether the input is done, with these settings, and its files have this state."""
        done = self.status == "done" and self.settings == settings
        return done and (self.size, self.modified) == state


_COLUMNS = tuple(column.name for column in fields(Outcome))
_NUMBERS = ("frames", "faces", "size", "modified")


class Manifest:
    """A CSV file with a row for each finished input, on the disk as soon as it is finished.

    A killed process can leave half a row at the end, which is ignored and removed. Of several rows
    of one input the last one counts.

    Args:
        path: the file; its rows are read, if it exists.

    Attributes:
        outcomes: the rows by input.

    Raises:
        ValueError: the file is not a manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1].decode()
            for line, row in enumerate(csv.DictReader(io.StringIO(whole)), start=2):
                outcome = _outcome(row, f"{path}, line {line}")
                self.outcomes[outcome.input] = outcome

    def rewrite(self, outcomes: Iterable[Outcome]) -> None:
        """Replace the file by one with these rows."""
        self.outcomes = {outcome.input: outcome for outcome in outcomes}
        text = _line(_COLUMNS) + "".join(_row(o) for o in self.outcomes.values())
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(text.encode())

    def sort(self, order: Sequence[str]) -> None:
        """Write the rows in the order of these inputs, whatever the order was in which they ended.

        Inputs that are not among them are first.
        """
        place = {name: index for index, name in enumerate(order)}
        rows = self.outcomes.values()
        self.rewrite(sorted(rows, key=lambda row: place.get(row.input, -1)))

    def add(self, outcome: Outcome) -> None:
        """Append a row, and return when it is on the disk."""
        self.outcomes[outcome.input] = outcome
        with self.path.open("ab") as file:
            file.write(_row(outcome).encode())
            file.flush()
            os.fsync(file.fileno())


def _row(outcome: Outcome) -> str:
    return _line(asdict(outcome).values())


def _line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _outcome(row: dict[str, Any], place: str) -> Outcome:
    try:
        values = {name: row[name] for name in _COLUMNS}
        values.update({name: int(row[name]) for name in _NUMBERS})
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{place}: row must have the columns {', '.join(_COLUMNS)}") from None
    if values["status"] not in get_args(Status):
        raise ValueError(
            f"{place}: status must be {', '.join(get_args(Status))}, got {values['status']!r}"
        )
    return Outcome(**values)
