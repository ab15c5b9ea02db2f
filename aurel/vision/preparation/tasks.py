"""The frames of an input, one after the other: of a file, or of a video of a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aurel.data.owners.table import FrameTable, Source
from aurel.vision.file_names import shown
from aurel.vision.frame import InputError
from aurel.vision.image import RGBImage
from aurel.vision.manifest import State, file_state
from aurel.vision.photos import read_photo
from aurel.vision.units import MediaTask
from aurel.vision.videos import USUAL_FPS, Video

NO_FRAME = "the video has no such frame"


@dataclass(frozen=True)
class FrameTask:
    """The frames of a data set that belong to one video of a person.

    Args:
        name: person and video, as in "F001/T1".
        numbers: numbers of the frames.
        sources: the picture of each frame.
        points: the owner's landmarks of each frame, (49, 2), or None.
    """

    name: str
    numbers: tuple[int, ...]
    sources: tuple[Source, ...]
    points: tuple[NDArray[np.float32] | None, ...]

    @property
    def input(self) -> str:
        """Name of the video."""
        return self.name

    @property
    def must_be_media(self) -> bool:
        """Whether it is an error if the input has no pictures."""
        return True

    def state(self) -> State | None:
        """Return the state of all files of the frames, or None if one cannot be read."""
        return file_state(*dict.fromkeys(source.path for source in self.sources))


@dataclass(frozen=True)
class Shot:
    """A frame of an input.

    Args:
        number: its number in the file or in the annotation.
        time: seconds, from any start.
        image: (H, W, 3) uint8 RGB, or None if it cannot be read.
        points: the owner's landmarks, (49, 2) in pixels, or None.
        reason: of a frame that cannot be read.
    """

    number: int
    time: float
    image: RGBImage | None
    points: NDArray[np.float32] | None = None
    reason: str = ""


def frame_task(table: FrameTable, rows: range) -> FrameTask:
    """Return the task of consecutive rows of a table, which are of one video."""
    points = [table.landmarks(row) for row in rows]
    return FrameTask(
        table.videos[rows[0]],
        tuple(table.numbers[rows.start : rows.stop].tolist()),
        tuple(table.sources[rows.start : rows.stop]),
        tuple(None if found is None else found.numpy() for found in points),
    )


def shots(task: MediaTask | FrameTask, every: int, problems: list[str]) -> Iterator[Shot]:
    """Yield the frames of a task.

    Args:
        task: the task.
        every: read one frame of a video file in `every`.
        problems: gets the reason if a video file is damaged.

    Raises:
        InputError: the file cannot be read at all.
    """
    if isinstance(task, FrameTask):
        rows = zip(task.numbers, task.sources, task.points, strict=True)
        for film, group in groupby(rows, key=_film_of):
            read = _pictures if film is None else partial(_frames, film)
            yield from read(group)
    elif task.photo:
        yield Shot(0, 0.0, read_photo(task.file.path))
    else:
        with Video(task.file.path, every) as video:
            for frame in video:
                yield Shot(frame.index, frame.time, frame.image)
        if video.problem is not None:
            problems.append(video.problem)


_Row = tuple[int, Source, NDArray[np.float32] | None]


def _film_of(row: _Row) -> Path | None:
    return None if row[1].frame is None else row[1].path


def _frames(path: Path, rows: Iterable[_Row]) -> Iterator[Shot]:
    waiting = {source.frame: (number, points) for number, source, points in rows}
    with Video(path) as video:
        for frame in video:
            if frame.index in waiting:
                number, points = waiting.pop(frame.index)
                yield Shot(number, frame.time, frame.image, points)
            if not waiting:
                return
    reason = NO_FRAME if video.problem is None else f"{NO_FRAME}: {video.problem}"
    for number, _ in waiting.values():
        yield Shot(number, 0.0, None, reason=reason)


def _pictures(rows: Iterable[_Row]) -> Iterator[Shot]:
    for path, group in groupby(rows, key=_archive_of):
        if path is None:
            for number, source, points in group:
                yield _shot(number, source, None, points)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for number, source, points in group:
                    yield _shot(number, source, archive, points)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{shown(path)} cannot be read as a zip file: {error}") from error


def _archive_of(row: _Row) -> Path | None:
    return None if row[1].member is None else row[1].path


def _shot(
    number: int,
    source: Source,
    archive: zipfile.ZipFile | None,
    points: NDArray[np.float32] | None,
) -> Shot:
    time = number / USUAL_FPS
    try:
        if archive is None:
            image = read_photo(source.path)
        else:
            image = read_photo(source.path / str(source.member), archive.read(str(source.member)))
    except (InputError, KeyError, zipfile.BadZipFile) as error:
        return Shot(number, time, None, reason=" ".join(str(error).split()))
    return Shot(number, time, image, points)
