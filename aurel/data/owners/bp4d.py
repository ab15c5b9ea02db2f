"""BP4D and BP4D+: a csv file of occurrence codes for each task of a person."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from aurel.data.owners.codes import (
    Codes,
    Labels,
    check_once,
    intensity,
    not_coded,
    occurrence,
    whole_numbers,
)
from aurel.data.owners.landmarks import read_tracked_points
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.pictures import numbered, picture_folder, pictures_of_videos
from aurel.data.owners.table import FrameTable, VideoCodes, frame_table
from aurel.data.text import numbered_lines
from aurel.facs import AUSet

BP4D_TREE = """\
AUCoding/AU_OCC/F001_T1.csv               AU numbers, then a line a frame: its number and a code for
                                          each AU, 1, 0, or 9 for unknown
AUCoding/AU_INT/AU06/F001_T1_AU06.csv     if there: the number of a frame and an intensity 0 to 5
Sequences(2D+3D)/F001/T1/0001.jpg         or 2D+3D, 2D+3D/F001.zip; or img/F001/T1/1.jpg
2DFeatures/F001_T1.mat                    if there: 49 landmarks a frame"""

_CSV = re.compile(r"([FM]\d+)_(T\d+)\.csv", re.IGNORECASE)
_CODES = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_PICTURES = ("Sequences(2D+3D)", "2D+3D", "Sequences")


def find_bp4d(root: Path) -> list[Path]:
    """Return the folders with csv files of occurrence codes."""
    return [root / name for name in _CODES if any(map(_task_of, _files(root / name)))]


def read_bp4d(request: OwnerRequest) -> FrameTable:
    """Return the table of BP4D (Zhang et al., 2014) or BP4D+ (Zhang et al., 2016).

    In BP4D+ only the tasks T1, T6, T7 and T8 are coded. The annotation numbers frames from 1 and
    BP4D+'s pictures from 0; see `OwnerOptions.picture_offset`.

    Raises:
        FileNotFoundError: there are no pictures.
        ValueError: a bad line, an AU that was not coded, or two pictures of a frame.
    """
    videos = []
    for file in sorted(_files(request.found)):
        if (task := _task_of(file)) is not None:
            videos.append(_read_task(file, *task, request.aus, request.options))
    images = picture_folder(request.root, request.images, _PICTURES)
    pictures = pictures_of_videos(images, _video_of)
    features = request.root / "2DFeatures"

    def points(video: str, number: int) -> Tensor | None:
        file = features / f"{video.replace('/', '_')}.mat"
        tracked = _tracked(file) if file.is_file() else []
        return tracked[number - 1] if 1 <= number <= len(tracked) else None

    find = numbered(pictures, videos, request.options)
    shipped = points if features.is_dir() else None
    return frame_table(request.aus, videos, find, images, shipped)


@lru_cache(maxsize=4)
def _tracked(file: Path) -> list[Tensor | None]:
    return read_tracked_points(file)


def _read_task(file: Path, person: str, task: str, aus: AUSet, options: OwnerOptions) -> VideoCodes:
    lines = numbered_lines(file)
    header = lines[0][1].split(",") if lines else []
    coded = [_au_number(word) for word in header[1:]]
    if lacking := not_coded(aus, coded):
        raise ValueError(
            f"{file}, line 1: the AUs must include {', '.join(lacking)}, got {','.join(header)!r}"
        )
    table = whole_numbers(lines[1:], len(header), file)
    places = [number for number, _ in lines[1:]]
    columns = [1 + coded.index(au) for au in aus.numbers]
    check_once(table[:, 0], places, file)
    return VideoCodes(
        person,
        f"{person}/{task}",
        table[:, 0].tolist(),
        occurrence(table[:, columns], options, file, places),
        _read_intensities(file, table[:, 0], aus, options),
        file,
        places,
    )


def _read_intensities(
    file: Path, frames: Codes, aus: AUSet, options: OwnerOptions
) -> Labels | None:
    """Return the intensities of the frames of a task, unknown without a file; None for none."""
    folder = file.parent.parent / "AU_INT"
    if not folder.is_dir():
        return None
    levels = np.full((len(frames), len(aus)), -1, dtype=np.int8)
    row_of = {frame: row for row, frame in enumerate(frames.tolist())}
    for column, au in enumerate(aus.numbers):
        coded = folder / f"AU{au:02d}" / f"{file.stem}_AU{au:02d}.csv"
        if not coded.is_file():
            continue
        lines = numbered_lines(coded)
        if lines and not lines[0][1][:1].isdigit():
            lines = lines[1:]  # a header
        table = whole_numbers(lines, 2, coded)
        values = intensity(table[:, 1:], options, coded, [number for number, _ in lines])
        for frame, value in zip(table[:, 0].tolist(), values[:, 0], strict=True):
            if frame in row_of:
                levels[row_of[frame], column] = value
    return levels


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _task_of(file: Path) -> tuple[str, str] | None:
    match = _CSV.fullmatch(file.name)
    return None if match is None else (match[1].upper(), match[2].upper())


def _video_of(folders: tuple[str, ...]) -> str | None:
    """Return "F001/T1" for folders that end so."""
    video = "/".join(folders[-2:]).upper()
    return video if re.fullmatch(r"[FM]\d+/T\d+", video) else None


def _au_number(word: str) -> int | None:
    digits = word.strip().strip("\"'").upper().removeprefix("AU").strip()
    return int(digits) if digits.isdigit() else None
