"""The table of labeled frames into which every owner's layout is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aurel.data.owners.codes import Labels
from aurel.facs import AUSet


class Source(NamedTuple):
    """The place of a picture.

    Attributes:
        path: a picture, a video or a zip file.
        frame: index of the frame in a video, from 0; None where `path` is no video.
        member: path in the zip file; None where `path` is none.
    """

    path: Path
    frame: int | None = None
    member: str | None = None

    @property
    def is_picture(self) -> bool:
        """Whether the path is a picture by itself."""
        return self.frame is None and self.member is None


class VideoCodes(NamedTuple):
    """The annotation of a video, or of a picture.

    Attributes:
        person: the person.
        video: person and task, as in "F001/T1"; the path of a single picture.
        numbers: (n,) numbers of the frames, as the file has them.
        labels: (n, N) 1 present, 0 absent, -1 unknown.
        intensity: (n, N) 0 to 5, -1 unknown; None where the owner gives none.
        file: the file of the annotation.
        lines: the line of each frame in it.
    """

    person: str
    video: str
    numbers: Sequence[int]
    labels: Labels
    intensity: Labels | None
    file: Path
    lines: Sequence[int]


Find = Callable[[str, int], Source | None]
Points = Callable[[str, int], Tensor | None]


@dataclass(frozen=True)
class FrameTable:
    """Labeled frames of a data set, one a row.

    Rows are the annotated frames that have a picture and at least one known label.

    Args:
        aus: the AUs of the columns.
        images: folder of the pictures or videos.
        sources: the picture of each row.
        people: the person of each row.
        videos: person and task of each row, as in "F001/T1".
        numbers: (M,) number of each frame in the annotation.
        labels: (M, N) int8: 1 present, 0 absent, -1 unknown.
        where: file and line of the annotation of each row.
        listed: number of annotated frames, with those that are no rows.
        missing: names of annotated frames without a picture.
        intensity: (M, N) int8: 0 to 5, -1 unknown; None where the owner gives none.
        points: function from a video and a number to the owner's landmarks of the whole frame,
            (49, 2) float32, or None; see `aurel.data.points.move_points`.
        notes: lines for the header of a run.
    """

    aus: AUSet
    images: Path
    sources: list[Source]
    people: list[str]
    videos: list[str]
    numbers: Tensor
    labels: Tensor
    where: list[tuple[Path, int]]
    listed: int
    missing: list[str]
    intensity: Tensor | None = None
    points: Points | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def key(self, row: int) -> str:
        """Return the name of a frame, as in "F001/T1/2440": the path of its chip without suffix."""
        return f"{self.videos[row]}/{int(self.numbers[row])}"

    def landmarks(self, row: int) -> Tensor | None:
        """Return the owner's landmarks of a frame, (49, 2) in pixels of the source, or None."""
        if self.points is None:
            return None
        return self.points(self.videos[row], int(self.numbers[row]))


def frame_table(
    aus: AUSet,
    videos: Sequence[VideoCodes],
    find: Find,
    images: Path,
    points: Points | None = None,
    notes: Sequence[str] = (),
) -> FrameTable:
    """Return the table of the frames of `videos` whose pictures `find` returns.

    Args:
        aus: the AUs of the columns.
        videos: the annotations.
        find: function from a video and the number of a frame to its picture, or None.
        images: folder of the pictures.
        points: see `FrameTable`.
        notes: see `FrameTable`.

    Raises:
        ValueError: no frame has a known label, or none of those that have one has a picture.
    """
    sources: list[Source] = []
    kept: list[tuple[VideoCodes, list[int]]] = []
    missing: list[str] = []
    for video in videos:
        rows = []
        for row in np.flatnonzero((video.labels >= 0).any(1)).tolist():
            source = find(video.video, int(video.numbers[row]))
            if source is None:
                missing.append(f"{video.video}/{int(video.numbers[row])}")
            else:
                sources.append(source)
                rows.append(row)
        kept.append((video, rows))
    if not missing and not sources:
        file = videos[0].file if videos else "the annotation"
        raise ValueError(f"{file} must have a known label, got none")
    if not sources:
        raise ValueError(
            f"{images} must hold pictures of labeled frames, got none of {len(missing)}, such as "
            f"{missing[0]} in {videos[0].file}"
        )
    return FrameTable(
        aus=aus,
        images=images,
        sources=sources,
        people=[video.person for video, rows in kept for _ in rows],
        videos=[video.video for video, rows in kept for _ in rows],
        numbers=torch.tensor([int(video.numbers[row]) for video, rows in kept for row in rows]),
        labels=_stacked([video.labels[rows] for video, rows in kept]),
        where=[(video.file, video.lines[row]) for video, rows in kept for row in rows],
        listed=sum(len(video.numbers) for video in videos),
        missing=missing,
        intensity=_intensity(kept, len(aus)),
        points=points,
        notes=list(notes),
    )


def _intensity(kept: Sequence[tuple[VideoCodes, list[int]]], num_aus: int) -> Tensor | None:
    if all(video.intensity is None for video, _ in kept):
        return None
    return _stacked(
        [
            np.full((len(rows), num_aus), -1, dtype=np.int8)
            if video.intensity is None
            else video.intensity[rows]
            for video, rows in kept
        ]
    )


def _stacked(arrays: Sequence[Labels]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays).astype(np.int8))
