"""Pictures from disk as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def open_rgb(path: str | Path) -> Image.Image:
    """Read a picture as 8-bit RGB, upright.

    Gray and palette pictures get three channels, 16-bit ones are divided by 257, transparent pixels
    are blended with black, and the camera's orientation tag is applied.

    Args:
        path: a file in any format that Pillow reads.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a picture, is cut short, or holds floating-point pixels.
        ImportError: Pillow is missing.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'aurel-au[vision]'") from error
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            return _rgb(picture)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode == "F":
        raise ValueError(
            "pixels must be integers, whose range is known, got floating point; save 8 bits"
        )
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.float64)
        return Image.fromarray((deep / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")
