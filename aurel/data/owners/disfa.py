"""DISFA: a text file of intensities for each person and AU, a video for each person."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from aurel.data.owners.codes import check_once, intensity, not_coded, present, whole_numbers
from aurel.data.owners.landmarks import read_points
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.pictures import numbered, picture_folder, pictures_of_videos
from aurel.data.owners.table import FrameTable, Source, VideoCodes, frame_table
from aurel.data.text import numbered_lines
from aurel.facs import AUSet

DISFA_TREE = """\
ActionUnit_Labels/SN001/SN001_au1.txt     a line a frame: its number, from 1, and an intensity 0-5
Videos_LeftCamera/LeftVideoSN001_comp.avi or img/SN001/1.png, or numbered from 0
Landmark_Points/SN001/SN001_0000_lm.mat   if there: 66 landmarks of the first frame; also .txt"""

CODED = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
_PERSON = re.compile(r"SN\d+", re.IGNORECASE)
_VIDEOS = ("Videos_LeftCamera", "Video_LeftCamera", "Videos_RightCamera", "Video_RightCamera")
_PICTURES = ("Images/Left", "Images", "Frames", "images")


def find_disfa(root: Path) -> list[Path]:
    """Return the folder of the labels."""
    folder = root / "ActionUnit_Labels"
    return [folder] if _people(folder) else []


def read_disfa(request: OwnerRequest) -> FrameTable:
    """Return the table of DISFA (Mavadati et al., 2013).

    An AU is present from the intensity `OwnerOptions.present`, 2 by default. Frame n of the
    annotation, which counts from 1, is frame n - 1 of the video. An AU without a file, and a frame
    that a file lacks, are unknown; the tools of ME-GraphAU take them for absent.

    Raises:
        FileNotFoundError: there are neither pictures nor videos.
        ValueError: a bad line, an AU that was not coded, or two pictures of a frame.
    """
    check_coded(request.aus, CODED, "DISFA")
    people = _people(request.found)
    videos = [_read_person(folder, request.aus, request.options) for folder in people]
    images = picture_folder(request.root, request.images, (*_PICTURES, *_VIDEOS))
    pictures = pictures_of_videos(images, _video_of)
    find = numbered(pictures, videos, request.options)
    if not any(pictures.values()):
        films = _films(images)

        def find(video: str, number: int) -> Source | None:
            return Source(films[video], frame=number - 1) if video in films else None

    folder = request.root / "Landmark_Points"
    points = (lambda video, number: _points(folder, video, number)) if folder.is_dir() else None
    without = [
        f"{v.person} has no code of {', '.join(n)}" for v in videos if (n := _unread(v, request))
    ]
    return frame_table(request.aus, videos, find, images, points, without)


def check_coded(aus: AUSet, coded: tuple[int, ...], dataset: str) -> None:
    """Raise ValueError unless all AUs of `aus` are in `coded`, without sides."""
    if other := not_coded(aus, coded):
        raise ValueError(
            f"data.aus must be among those of {dataset}, {', '.join(map(str, coded))}, got "
            f"{', '.join(other)}"
        )


def coded_frames(
    person: str,
    video: str,
    files: Sequence[Path | None],
    options: OwnerOptions,
    lines_of: Callable[[Path], list[tuple[int, str]]] = numbered_lines,
) -> VideoCodes:
    """Return the frames of a video from files of intensities, one for each AU.

    Args:
        person, video: see `VideoCodes`.
        files: the file of each AU, or None for an AU that is unknown in all frames.
        options: rules of the labels.
        lines_of: function from a file to its numbered lines "frame,intensity".

    Raises:
        ValueError: a bad line, or a frame twice in a file.
    """
    codes: list[dict[int, int]] = [{} for _ in files]
    place: dict[int, tuple[Path, int]] = {}
    for by_frame, file in zip(codes, files, strict=True):
        if file is None:
            continue
        lines = lines_of(file)
        numbers = [number for number, _ in lines]
        table = whole_numbers(lines, 2, file)
        check_once(table[:, 0], numbers, file)
        levels = intensity(table[:, 1:], options, file, numbers)[:, 0].tolist()
        for frame, level, number in zip(table[:, 0].tolist(), levels, numbers, strict=True):
            by_frame[frame] = level
            place.setdefault(frame, (file, number))
    first = next((file for file in files if file is not None), Path(video))
    frames = sorted(place)
    rows = [[by_frame.get(frame, -1) for by_frame in codes] for frame in frames]
    levels = np.array(rows, dtype=np.int8).reshape(len(frames), len(files))
    return VideoCodes(
        person,
        video,
        frames,
        present(levels, options),
        levels,
        first,
        [number if file == first else 0 for file, number in map(place.__getitem__, frames)],
    )


def _read_person(folder: Path, aus: AUSet, options: OwnerOptions) -> VideoCodes:
    by_name = {file.name.lower(): file for file in folder.iterdir()}
    files = [by_name.get(f"{folder.name.lower()}_au{au}.txt") for au in aus.numbers]
    return coded_frames(folder.name.upper(), folder.name.upper(), files, options)


def _unread(video: VideoCodes, request: OwnerRequest) -> list[str]:
    """Return the AUs that are unknown in all frames of a person."""
    unread = np.flatnonzero((video.labels < 0).all(0)).tolist()
    return [request.aus.names[column] for column in unread]


def _people(folder: Path) -> list[Path]:
    inner = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inner if path.is_dir() and _PERSON.fullmatch(path.name))


def _video_of(folders: tuple[str, ...]) -> str | None:
    """Return the person of the innermost folder that names one, as in LeftVideoSN001_comp."""
    for folder in reversed(folders):
        if (match := _PERSON.search(folder)) is not None:
            return match[0].upper()
    return None


def _films(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        match = _PERSON.search(file.name)
        if match is None or file.suffix.lower() not in (".avi", ".mp4", ".mkv"):
            continue
        if match[0].upper() in found:
            other = found[match[0].upper()]
            raise ValueError(f"{folder} must hold one video of {match[0]}, got {other} and {file}")
        found[match[0].upper()] = file
    return found


def _points(folder: Path, person: str, number: int) -> Tensor | None:
    """Return the landmarks of a frame, in a file that counts from 0, or ``l00001_lm`` from 1."""
    files = _landmark_files(folder / person)
    file = files.get(("", number - 1)) or files.get(("l", number))
    return None if file is None else read_points(file)


@lru_cache(maxsize=4)
def _landmark_files(folder: Path) -> dict[tuple[str, int], Path]:
    found = {}
    for file in sorted(folder.rglob("*_lm.*")):
        match = re.fullmatch(r"(?:.*_|(l))(\d+)_lm\.(?:mat|txt)", file.name)
        if match is not None:
            found[(match[1] or "", int(match[2]))] = file
    return found
