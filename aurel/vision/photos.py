"""Read photographs as upright 8-bit RGB pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from aurel.data.images import open_rgb, register_heif
from aurel.vision.file_names import shown
from aurel.vision.frame import InputError, check_file
from aurel.vision.image import RGBImage

FORMATS = (
    *("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "HEIF", "JPEG2000"),
    "PPM",
)
"""Formats of Pillow and pillow-heif that are read, whatever the suffix of a file is."""

_ANIMATED = ("GIF", "PNG")  # animations in the other formats are read as their first picture


def is_photo(path: Path | str) -> bool:
    """Return whether the content of a file is a photograph; an animated GIF or PNG is a video.

    Raises:
        InputError: the file does not exist or is not a regular file.
    """
    path = Path(path)
    check_file(path)
    register_heif()
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
                return not (file.format in _ANIMATED and getattr(file, "is_animated", False))
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError, EOFError):
        return False


def read_photo(path: Path | str, content: bytes | None = None) -> RGBImage:
    """Read a photograph as upright 8-bit RGB.

    See `aurel.data.images.open_rgb`. Of an animation, the first picture is read.

    Args:
        path: the file.
        content: its content, where it is read already, as from an archive.

    Returns:
        The picture, (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, not a photograph, or truncated.
    """
    path = Path(path)
    if content is None:
        check_file(path)
    try:
        with warnings.catch_warnings():
            # Allow large photographs; Pillow still raises beyond twice its limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return np.asarray(open_rgb(path, content))
    except (ValueError, OSError, EOFError, Image.DecompressionBombError) as error:
        line = str(error).split("\n")[0].replace(str(path), shown(path))
        named = line.startswith(shown(path))
        raise InputError(line if named else f"{shown(path)} cannot be read: {line}") from error
