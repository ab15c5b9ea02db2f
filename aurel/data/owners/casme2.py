"""CASME II: a sheet with the first and last frame and the AUs of each micro-expression."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aurel.data.owners.au_words import present_aus
from aurel.data.owners.layout import OwnerRequest
from aurel.data.owners.pictures import numbered, picture_folder, pictures_of_videos
from aurel.data.owners.sheets import column, find_sheets, read_sheet
from aurel.data.owners.table import FrameTable, VideoCodes, frame_table
from aurel.data.subjects import normalized_subject

CASME2_TREE = """\
CASME2-coding-20140508.csv                columns Subject, Filename, OnsetFrame, OffsetFrame, Action
                                          Units ("4+L10"; "?" for unknown); also .xlsx
Cropped/sub01/EP02_01f/reg_img46.jpg      or CASME2_RAW_selected/, or img/"""


def find_casme2(root: Path) -> list[Path]:
    """Return the sheets of annotations."""
    return find_sheets(root, "casme2-coding")


def read_casme2(request: OwnerRequest) -> FrameTable:
    """Return the table of CASME II (Yan et al., 2014).

    All frames from the onset to the offset have the AUs of the expression, as in the lists of
    OpenGraphAU; other frames have no label. Codes without an AU are unknown.

    Raises:
        FileNotFoundError: there are no pictures.
        ValueError: a bad row, or two pictures of a frame.
    """
    file = request.found
    rows = read_sheet(file)
    subject, name, onset, offset, units = (
        column(rows, title, file)
        for title in ("Subject", "Filename", "OnsetFrame", "OffsetFrame", "Action Units")
    )
    videos = []
    for line, row in rows:
        if not row[onset].isdigit() or not row[offset].isdigit():
            raise ValueError(
                f"{file}, line {line}: OnsetFrame and OffsetFrame must be whole numbers, got "
                f"{row[onset]!r} and {row[offset]!r}"
            )
        if int(row[offset]) < int(row[onset]):
            raise ValueError(
                f"{file}, line {line}: OffsetFrame must be at least OnsetFrame, {row[onset]}, got "
                f"{row[offset]}"
            )
        person = f"sub{row[subject].lower().removeprefix('sub').zfill(2)}"
        numbers = list(range(int(row[onset]), int(row[offset]) + 1))
        labels = np.full((len(numbers), len(request.aus)), -1, dtype=np.int8)
        if any(letter.isdigit() for letter in row[units]):
            labels[:] = present_aus(row[units], request.aus, file, line)
        video = _video(person, row[name])
        videos.append(VideoCodes(person, video, numbers, labels, None, file, [line] * len(numbers)))
    images = picture_folder(request.root, request.images, ("Cropped", "CASME2_RAW_selected"))
    pictures = pictures_of_videos(images, _video_of)
    find = numbered(pictures, videos, request.options)
    return frame_table(request.aus, videos, find, images)


def _video_of(folders: tuple[str, ...]) -> str | None:
    return _video(*folders[-2:]) if len(folders) >= 2 else None


def _video(person: str, name: str) -> str:
    return f"{normalized_subject(person)}/{name.lower()}"
