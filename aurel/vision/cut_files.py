"""Recognize videos that are cut by the bytes of the file, where the frames cannot show it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

PACKETS = (188, 192, 204)
"""Bytes of a packet of an MPEG transport stream: plain, of a Blu-ray, with error correction."""

GIF_END = b"\x00;"
"""The end of the last picture and of the file; some programs add a few bytes."""
_GIF_TAIL = 64

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def cut_reason(path: Path, formats: set[str]) -> str | None:
    """Return the reason why a file is cut, or None if its bytes do not show it.

    Args:
        path: the file.
        formats: FFmpeg's names of its format.
    """
    size = path.stat().st_size
    if "mpegts" in formats and all(size % packet for packet in PACKETS):
        return "it ends within a packet"
    with path.open("rb") as file:
        if "gif" in formats:
            file.seek(max(0, size - _GIF_TAIL))
            return None if GIF_END in file.read() else "its end is missing"
        if "matroska" in formats:
            announced = _matroska_size(file)
            if announced is not None and announced > size:
                return f"it ends after {size} of {announced} bytes"
    return None


def _matroska_size(file: BinaryIO) -> int | None:
    """Return the size of a Matroska file by its header, or None if that does not say it.

    Source: RFC 8794 (EBML), sections 4 to 6: the size of an element whose bits are all ones is
    unknown.
    """
    for expected in (_EBML, _SEGMENT):
        name, _ = _variable_int(file, keep_marker=True)
        size, largest = _variable_int(file, keep_marker=False)
        if name != expected or size == largest:
            return None
        end = file.seek(size, 1)
    return end


def _variable_int(file: BinaryIO, keep_marker: bool) -> tuple[int, int]:
    """Return an EBML integer and the largest of its length; (0, 0) where there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    largest = (1 << 7 * length) - 1
    return (value if keep_marker else value & largest), largest
