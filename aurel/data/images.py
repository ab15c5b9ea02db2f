"""Pictures from disk as 8-bit RGB."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def open_rgb(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Read a picture as 8-bit RGB, upright.

    Gray and palette pictures get three channels, transparent pixels are blended with black, and
    the camera's orientation tag is applied. Gray pixels of more than 8 bits are scaled by the range
    of 8, 10, 12 or 16 bits that holds the largest one: cameras write 12 bits into files of 16, and
    programs 8 bits into files of 32.

    Args:
        path: a file in any format that Pillow reads; HEIC if pillow-heif is installed.
        content: the content of the file, where it is read already; None to read it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a picture, is cut short, or holds floating-point pixels.
        ImportError: Pillow is missing.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'aurel-au[vision]'") from error
    register_heif()
    try:
        with Image.open(path if content is None else BytesIO(content)) as file:
            ImageOps.exif_transpose(file, in_place=True)  # reads the pixels
            return _rgb(file)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


@cache
def register_heif() -> None:
    """Let Pillow read HEIC, if pillow-heif is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _rgb(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode == "F":
        raise ValueError(
            "pixels must be integers, whose range is known, got floating point; save 8 bits"
        )
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.float64)
        highest = next((2**bits - 1 for bits in (8, 10, 12) if deep.max() < 2**bits), 2**16 - 1)
        levels = (deep * (255 / highest)).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(levels).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
