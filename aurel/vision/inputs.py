"""Photographs and videos: search folders for them, and distinguish them by their content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aurel.vision.file_names import shown
from aurel.vision.frame import Frame, InputError, NotMediaError
from aurel.vision.photos import is_photo, read_photo
from aurel.vision.videos import Video

__all__ = [
    "MEDIA_SUFFIXES",
    "FoundFile",
    "FoundFiles",
    "Frame",
    "InputError",
    "NotMediaError",
    "Video",
    "find_files",
    "find_inputs",
    "is_photo",
    "is_video",
    "read_photo",
]

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".heic", ".heif", ".avif"}
    | {".jp2", ".j2k"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
    | {".mts", ".m2ts", ".3gp", ".3g2", ".ogv", ".vob", ".asf"}
)
MEDIA_SUFFIXES = PHOTO_SUFFIXES | VIDEO_SUFFIXES
"""A file of a folder that cannot be read is an error with one of these suffixes, and else is no
input. The suffix decides nothing else."""


@dataclass(frozen=True)
class FoundFile:
    """A file to read.

    Args:
        path: as given, or below a folder that was given.
        named: the path itself was given.
    """

    path: Path
    named: bool = True

    @property
    def must_be_media(self) -> bool:
        """Whether it is an error if the file is neither a photograph nor a video."""
        return self.named or self.path.suffix.lower() in MEDIA_SUFFIXES


@dataclass
class FoundFiles:
    """The result of a search.

    Args:
        files: in the given order, without repeats; those of a folder are sorted by name.
        hidden: number of files and folders that were skipped because their name begins with a dot.
        special: pipes, sockets, devices and broken links in folders.
        errors: a line for each folder that cannot be read.
    """

    files: list[FoundFile] = field(default_factory=list)
    hidden: int = 0
    special: list[Path] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def is_video(path: Path) -> bool:
    """Return whether the content of a file is a video, or an animated GIF or PNG.

    A damaged file, whose content says nothing, is what its suffix says.

    Raises:
        InputError: the file does not exist or is not a regular file.
    """
    if is_photo(path):
        return False
    try:
        with Video(path):
            return True
    except InputError:
        return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Iterable[Path | str], skip: Path | None = None) -> list[Path]:
    """Return the photographs and videos in `paths`, by their suffixes in folders.

    A path that is not a folder is returned with any suffix, and also if it does not exist, so that
    reading it reports the error; see `find_files`.
    """
    found = find_files(paths, [] if skip is None else [skip])
    return [file.path for file in found.files if file.must_be_media]


def find_files(paths: Iterable[Path | str], skip: Iterable[Path] = ()) -> FoundFiles:
    """Return all files in `paths` and below the folders among them.

    Links to folders are followed, each folder once. A path that is given is returned even if it
    does not exist, so that reading it reports the error.

    Args:
        paths: files and folders.
        skip: folders to ignore, such as the one that results are written to.

    Raises:
        InputError: a path is empty.
    """
    found = FoundFiles()
    seen = {os.path.realpath(folder) for folder in skip}
    for given in paths:
        if not os.fspath(given):
            raise InputError("a path must not be empty, got ''")
        path = Path(given)
        named = not path.is_dir()
        for file in [path] if named else _walk(path, found, seen):
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                found.files.append(FoundFile(file, named))
    return found


def _walk(folder: Path, found: FoundFiles, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        found.errors.append(f"{shown(folder)} cannot be read: {error.strerror}")
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            found.hidden += 1
            continue
        try:
            mode = path.stat().st_mode
        except (OSError, RuntimeError):
            mode = 0
        if stat.S_ISDIR(mode):
            yield from _walk(path, found, seen)
        elif stat.S_ISREG(mode):
            yield path
        else:
            found.special.append(path)
