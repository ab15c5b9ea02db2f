"""Recordings, people, conditions, times and tracks of the rows of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aurel.tables.au_table import Names
from aurel.tables.cells import Numbers, to_numbers, to_seconds
from aurel.tables.columns import Tool
from aurel.tables.text_file import TextTable

_FROM_FILE = "file:"
_PERSON = "person"  # a column of `aurel predict` that earlier versions did not write


class Ask(Protocol):
    """The options that names depend on; see `ReadOptions`."""

    @property
    def person(self) -> str | None: ...
    @property
    def condition(self) -> str | None: ...


def number_column(table: TextTable, index: int, place: list[str]) -> Numbers:
    """Return the numbers of a column; true and false are 1 and 0."""
    truth = {"true": 1.0, "false": 0.0}
    return to_numbers(
        table.columns[index],
        table.header[index],
        place,
        decimal_comma=table.decimal_comma,
        words=truth,
    )


def names_of(
    table: TextTable, known: Mapping[str, int], source: str, ask: Ask
) -> tuple[Names, Names, Names]:
    """Return recording, person and condition of each row."""
    rows, stem = len(table.lines), Path(source).stem
    if "source" in known:
        cells = table.columns[known["source"]]
        recordings = np.array([cell or source for cell in cells], dtype=np.str_)
    else:
        recordings = np.full(rows, source)
    stems = {name: Path(name.replace("\\", "/")).stem for name in np.unique(recordings).tolist()}
    by_recording = np.array([stems[name] for name in recordings.tolist()], dtype=np.str_)
    result = []
    for meaning, own, default in (
        ("person", ask.person, by_recording),
        ("condition", ask.condition, np.full(rows, "")),
    ):
        if own is not None and own.startswith(_FROM_FILE):
            names = [stem] if "source" not in known else [stem, *stems.values()]
            result.append(_by_pattern(own, names, stem, by_recording, meaning, source))
        elif own is not None and own not in table.header:
            raise ValueError(
                f"{source}: {meaning} must be a column of the table, got {own!r}; "
                f"columns: {', '.join(table.header[:12])} ..."
            )
        elif own is not None or meaning in known:
            index = known[meaning] if own is None else table.header.index(own)
            named = np.array(table.columns[index], dtype=np.str_)
            result.append(np.where(named == "", default, named))
        else:
            result.append(default)
    return recordings, result[0], result[1]


def _by_pattern(
    own: str, names: Sequence[str], stem: str, by_recording: Names, meaning: str, source: str
) -> Names:
    """Return what a regular expression finds in the name of the recording, else of the file."""
    try:
        pattern = re.compile(own.removeprefix(_FROM_FILE))
    except re.error as error:
        raise ValueError(
            f"{meaning} must hold a regular expression, got {own!r}: {error}"
        ) from None
    if pattern.groups < 1:
        raise ValueError(f"{meaning} must have a group in brackets, as file:(P\\d+), got {own!r}")
    found = {name: match[1] for name in names if (match := pattern.search(name))}
    try:
        return np.array(
            [found[n] if n in found else found[stem] for n in by_recording.tolist()],
            dtype=np.str_,
        )
    except KeyError:
        raise ValueError(f"{source}: {meaning} {own!r} matches nothing in the name") from None


def frames_of(table: TextTable, known: Mapping[str, int], place: list[str]) -> NDArray[np.int64]:
    """Return the frame numbers of the rows; without a column of them, the numbers of the rows."""
    if "frame" not in known:
        return np.arange(len(place))
    frames = number_column(table, known["frame"], place)
    if np.isnan(frames).any():
        row = int(np.isnan(frames).argmax())
        raise ValueError(f"{place[row]}: {table.header[known['frame']]} must be a number, got ''")
    return frames.astype(np.int64)


def times_of(
    table: TextTable,
    known: Mapping[str, int],
    place: list[str],
    tool: Tool,
    fps: float | None,
    frame: NDArray[np.int64],
) -> Numbers:
    """Return seconds; NaN where neither a column nor `fps` says them."""
    if fps is not None:
        return frame / fps
    if "time" not in known:
        return np.full(len(place), np.nan)
    index = known["time"]
    name = table.header[index]
    times = to_seconds(table.columns[index], name, place, decimal_comma=table.decimal_comma)
    milliseconds = name.lower().endswith("ms") or tool == "imotions"
    return times / 1000 if milliseconds else times


def tracks_of(
    table: TextTable,
    known: Mapping[str, int],
    recordings: Names,
    persons: Names,
    frame: NDArray[np.int64],
    tool: Tool,
    ask: Ask,
) -> tuple[NDArray[np.int64], Names, tuple[str, ...]]:
    """Number the faces of each recording; each is a person of its own where none is named.

    Returns:
        track (M,), person (M,) and notes.
    """
    notes: list[str] = []
    _, recording = np.unique(recordings, return_inverse=True)
    faces = np.full(len(frame), "", dtype=np.str_)
    if "face" in known:
        faces = _filled(np.array(table.columns[known["face"]], dtype=np.str_), recording)
    _, face = np.unique(faces, return_inverse=True)
    repeated = _repeats(recording, face, frame)
    if repeated.any():
        notes.append("rows of one frame and face: their order in the file distinguishes them")
    _, track = np.unique(np.stack((recording, face, repeated), 1), axis=0, return_inverse=True)
    track = track.reshape(-1).astype(np.int64)
    pairs = np.unique(np.stack((recording, track), 1), axis=0)
    several = np.bincount(pairs[:, 0])[recording] > 1
    if several.any() and ask.person is None and "person" not in known:
        label = np.where(repeated > 0, np.char.add(faces, repeated.astype(np.str_)), faces)
        label = np.where(label == "", "0", label)
        persons = np.where(several, np.char.add(np.char.add(persons, " face "), label), persons)
        notes.append("several faces in one recording: each counts as a person")
    if several.any() and tool == "aurel" and _PERSON not in table.header:
        notes.append("faces are numbered anew in each frame: one number may be several people")
    return track, persons, tuple(notes)


def _filled(faces: Names, recording: NDArray[Any]) -> Names:
    """Give rows without a face to the first face of their recording, in which they are gaps."""
    for number in np.unique(recording[faces == ""]):
        named = faces[(recording == number) & (faces != "")]
        if len(named):
            faces = np.where((recording == number) & (faces == ""), named[0], faces)
    return faces


def _repeats(
    recording: NDArray[Any], face: NDArray[Any], frame: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how many rows of the same recording, face and frame come before each row."""
    order = np.lexsort((np.arange(len(frame)), frame, face, recording))
    keys = np.stack((recording, face, frame), axis=1)[order]
    new = np.r_[True, (keys[1:] != keys[:-1]).any(1)]
    starts = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    repeats = np.empty(len(frame), dtype=np.int64)
    repeats[order] = np.arange(len(new)) - starts
    return repeats
