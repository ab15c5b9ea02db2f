"""Text files of any encoding that Windows or Unix writes."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Line ends of Windows and of old Macs become line feeds.

    Raises:
        ValueError: another encoding; the message names the file.
    """
    data = file.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be a text file in UTF-8, got {error}") from error
    if "\0" in text:
        raise ValueError(
            f"{file} must be a text file in UTF-8, got zero bytes, as in UTF-16 without a byte "
            "order mark"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that are not empty, without spaces at their ends.

    Each line comes with its number, counted from 1.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_text(file).split("\n"), 1))
    return [(number, line) for number, line in lines if line]
