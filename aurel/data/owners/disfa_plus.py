"""DISFA+: a text file of intensities for each AU of a trial, a folder of pictures for a trial."""

from __future__ import annotations

import re
from pathlib import Path

from aurel.data.owners.disfa import CODED, check_coded, coded_frames
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.options import OwnerOptions
from aurel.data.owners.pictures import (
    numbered,
    picture_folder,
    picture_number,
    pictures_of_videos,
)
from aurel.data.owners.table import FrameTable, VideoCodes, frame_table
from aurel.data.text import numbered_lines
from aurel.facs import AUSet

DISFA_PLUS_TREE = """\
Labels/SN001/<trial>/AU1.txt              under a header a line a frame: the name of its picture
                                          and an intensity 0 to 5
Images/SN001/<trial>/000.jpg              or img/SN001/<trial>/000.jpg"""

_PERSON = re.compile(r"SN\d+", re.IGNORECASE)


def find_disfa_plus(root: Path) -> list[Path]:
    """Return the folder of the labels."""
    return [root / "Labels"] if next((root / "Labels").glob("SN*/*/AU*.txt"), None) else []


def read_disfa_plus(request: OwnerRequest) -> FrameTable:
    """Return the table of DISFA+ (Mavadati et al., 2016): nine people who pose expressions.

    An AU is present from the intensity `OwnerOptions.present`, 2 by default. An AU without a file,
    and a picture that a file lacks, are unknown.

    Raises:
        FileNotFoundError: there are no pictures.
        ValueError: a bad line, an AU that was not coded, or two pictures of a frame.
    """
    check_coded(request.aus, CODED, "DISFA+")
    videos = [
        _read_trial(trial, request.aus, request.options)
        for person in sorted(request.found.iterdir())
        if person.is_dir() and _PERSON.fullmatch(person.name)
        for trial in sorted(person.iterdir())
        if trial.is_dir()
    ]
    images = picture_folder(request.root, request.images, ("Images", "Aligned"))
    pictures = pictures_of_videos(images, _video_of)
    find = numbered(pictures, videos, request.options)
    return frame_table(request.aus, videos, find, images)


def _read_trial(folder: Path, aus: AUSet, options: OwnerOptions) -> VideoCodes:
    names = [(f"AU{au}.txt", f"AU{au:02d}.txt") for au in aus.numbers]
    files = [next((folder / n for n in both if (folder / n).is_file()), None) for both in names]
    person = folder.parent.name.upper()
    return coded_frames(person, f"{person}/{folder.name}", files, options, _frames_and_codes)


def _frames_and_codes(file: Path) -> list[tuple[int, str]]:
    """Return numbered lines "number,code" for the lines "000.jpg   0" below the header."""
    found: list[tuple[int, str]] = []
    for number, line in numbered_lines(file):
        words = line.split()
        frame = picture_number(words[0])
        if frame is None and not found and not words[0][0].isdigit():
            continue  # the header
        if frame is None:
            raise ValueError(f"{file}, line {number}: a line must name a picture, got {line!r}")
        found.append((number, ",".join([str(frame), *words[1:]])))
    return found


def _video_of(folders: tuple[str, ...]) -> str | None:
    if len(folders) < 2 or not _PERSON.fullmatch(folders[-2]):
        return None
    return f"{folders[-2].upper()}/{folders[-1]}"
