"""Read photographs and videos as upright 8-bit RGB pictures, and find them in folders."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from aurel.data.images import open_rgb
from aurel.vision.image import RGBImage
from aurel.vision.opencv import cv2

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
_ISO_MEDIA_SUFFIXES = frozenset({".mp4", ".mov", ".m4v"})
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})


class InputError(ValueError):
    """A file cannot be used; the message is one line with its name and the reason."""


@dataclass(frozen=True)
class Frame:
    """One picture of an input.

    Args:
        index: number of the frame in its video, from 0; 0 for a photograph.
        time: seconds from the start of the video; 0 for a photograph.
        image: (H, W, 3) uint8 RGB, upright.
    """

    index: int
    time: float
    image: RGBImage


def is_video(path: Path) -> bool:
    """Return whether a file is read as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Iterable[Path | str], skip: Path | None = None) -> list[Path]:
    """Return the photographs and videos in `paths`, in the given order, without repeats.

    A folder stands for the photographs and videos in it and its subfolders, sorted by name, without
    hidden files. A path that is not a folder is returned with any suffix, and also if it does not
    exist, so that reading it reports the error.

    Args:
        paths: files and folders.
        skip: a folder to ignore, such as the one that results are written to.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        files = _files_below(path, skip) if path.is_dir() else [path]
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _files_below(folder: Path, skip: Path | None) -> list[Path]:
    files = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        skipped = skip is not None and path.resolve().is_relative_to(skip.resolve())
        known = path.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES
        if known and not hidden and not skipped and path.is_file():
            files.append(path)
    return files


def read_photo(path: Path | str) -> RGBImage:
    """Read a photograph as upright 8-bit RGB.

    See `aurel.data.images.open_rgb`. Of an animation, the first picture is read.

    Returns:
        The picture, (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, not a photograph, or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        with warnings.catch_warnings():
            # Allow large photographs; Pillow still raises beyond twice its limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return np.asarray(open_rgb(path))
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise InputError(_one_line(path, error)) from error


def _one_line(path: Path, error: Exception) -> str:
    line = str(error).split("\n")[0]
    return line if line.startswith(str(path)) else f"{path} cannot be read: {line}"


class Video:
    """A video that is read frame by frame: a context manager, and an iterable of `Frame`.

    Frames are rotated upright by the rotation in the file. One frame is in memory at a time.

    Args:
        path: the file.
        every: read one frame in `every`, from the first one on.

    Raises:
        InputError: the file is missing, not a video, or truncated; while iterating also if it has
            no frames or a damaged frame.
    """

    def __init__(self, path: Path | str, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.path = Path(path)
        self.every = every
        if not self.path.is_file():
            raise InputError(f"{self.path} does not exist")
        if self.path.suffix.lower() in _ISO_MEDIA_SUFFIXES and _is_truncated(self.path):
            raise InputError(f"{self.path} cannot be read: the file is truncated")
        self._capture = cv2.VideoCapture(str(self.path))
        if not self._capture.isOpened():
            raise InputError(f"{self.path} is not a video that can be read")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float = rate if 0 < rate < 1000 else 25.0
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Number of frames in the header of the file; the actual number may differ by a few."""
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (max(1, int(self._capture.get(side))) for side in sides)
        self.pixels: int = width * height
        """Number of pixels of a frame in the header of the file."""

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        time = 0.0
        while self._capture.grab():
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            time = stamp if stamp > time or index == 0 else index / self.fps
            if index % self.every == 0:
                ok, picture = self._capture.retrieve()
                if not ok:
                    raise InputError(f"{self.path} cannot be read: frame {index} is damaged")
                yield Frame(index, time, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            index += 1
        if index == 0:
            raise InputError(f"{self.path} has no frames")
        if self.path.suffix.lower() == ".avi" and index < 0.9 * self.frame_count:
            raise InputError(
                f"{self.path} is truncated: {index} of {self.frame_count} frames can be read"
            )

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.release()


def _is_truncated(path: Path) -> bool:
    """Return whether a box of an ISO media file (MP4, MOV) extends beyond the end of the file."""
    end = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= end:
            file.seek(position)
            header = file.read(16)
            if position == 0 and header[4:8] not in _FIRST_BOXES:
                return False
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                # 0 means "to the end of the file"; other values below 8 are not boxes.
                return False
            position += size
    return position > end
