"""The pictures that inputs consist of, and the error of an input that cannot be used."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from aurel.vision.file_names import shown
from aurel.vision.image import RGBImage


class InputError(ValueError):
    """A file cannot be used; the message is one line with its name and the reason."""


class NotMediaError(InputError):
    """A file is neither a photograph nor a video."""


@dataclass(frozen=True)
class Frame:
    """One picture of an input.

    Args:
        index: number of the frame in its video, from 0; 0 for a photograph.
        time: seconds from the first frame of the video; 0 for a photograph.
        image: (H, W, 3) uint8 RGB, upright.
    """

    index: int
    time: float
    image: RGBImage


def check_file(path: Path) -> None:
    """Raise unless `path` is a regular file: reading from a pipe or a device may never end.

    Raises:
        InputError: there is no such file, or it is a folder, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{shown(path)} does not exist") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of symbolic links"
        raise InputError(f"{shown(path)} cannot be read: {reason}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{shown(path)} is not a regular file")
