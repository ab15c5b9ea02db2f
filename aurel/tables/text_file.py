"""Text files of unknown encoding, separator and decimal mark, as columns of cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
HEADER_WITHIN, HEADER_AFTER = 200, 10  # lines of the file, and after the first candidate
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True)
class TextTable:
    """Cells of a table by column.

    Args:
        path: the file.
        header: names of all columns of the file, without blanks around them.
        columns: cells of the chosen columns, by their number in `header`.
        lines: line of the file in which each row ends, from 1.
        decimal_comma: whether numbers may be written with a comma.
    """

    path: Path
    header: tuple[str, ...]
    columns: dict[int, list[str]]
    lines: list[int]
    decimal_comma: bool


def decode(data: bytes, path: Path) -> str:
    """Return the text of a file: UTF-8 or UTF-16, with or without a mark, else Windows-1252.

    Raises:
        ValueError: the file is empty, or a workbook of Excel.
    """
    if not data.strip(b"\x00 \t\r\n"):
        raise ValueError(f"{path}: the file is empty")
    if data.startswith(_EXCEL):
        raise ValueError(f"{path}: an Excel workbook; save the sheet as CSV and read that")
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    start = data[:1000]
    if b"\x00" in start:
        little = start[1::2].count(0) >= start[0::2].count(0)
        return data.decode("utf-16-le" if little else "utf-16-be", errors="replace")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def find_header(
    text: str, score: Callable[[Sequence[str]], int]
) -> tuple[int, str, list[str]] | None:
    """Return line (from 0), separator and cells of the line that is most like a header.

    Args:
        text: the file.
        score: how many cells of a line are what a header holds.

    Returns:
        None where no line of the first 200 scores more than 0. The search ends ten lines after
        the best line so far.
    """
    best: tuple[int, int, int, str, list[str]] | None = None
    for number, line in enumerate(io.StringIO(text, newline=None)):
        if number == HEADER_WITHIN or (best is not None and number > best[2] + HEADER_AFTER):
            break
        for separator in SEPARATORS:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
            points = score(cells)
            if points and (best is None or (points, len(cells)) > best[:2]):
                best = (points, len(cells), number, separator, cells)
    return None if best is None else best[2:]


def read_columns(
    text: str, path: Path, header: tuple[int, str, list[str]], needed: Sequence[int]
) -> TextTable:
    """Return the needed columns below a header, without empty lines and those that start with #.

    Raises:
        ValueError: a row has more or fewer cells than the header; names file and line.
    """
    first, separator, names = header
    file = io.StringIO(text, newline="")
    for _ in range(first + 1):
        file.readline()
    columns: dict[int, list[str]] = {number: [] for number in needed}
    lines = []
    reader = csv.reader(file, delimiter=separator)
    try:
        for cells in reader:
            if not any(cells) or cells[0].startswith("#"):
                continue
            line = first + 1 + reader.line_num
            if len(cells) != len(names) and (len(cells) < len(names) or any(cells[len(names) :])):
                raise ValueError(
                    f"{path}, line {line}: a row must have {len(names)} cells as the header has, "
                    f"got {len(cells)}"
                )
            for number, column in columns.items():
                column.append(cells[number].strip())
            lines.append(line)
    except csv.Error as error:
        raise ValueError(f"{path}, line {first + 1 + reader.line_num}: {error}") from None
    return TextTable(path, tuple(names), columns, lines, decimal_comma=separator != ",")
