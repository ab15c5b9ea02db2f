"""Sheets of annotations: csv files, or Excel files by pandas."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from aurel.data.text import read_text

Row = dict[str, str]


def find_sheets(folder: Path, pattern: str) -> list[Path]:
    """Return the csv and Excel files in a folder whose names begin with a regular expression.

    A csv file takes the place of the Excel file of the same name.
    """
    form = re.compile(rf"(?:{pattern}).*\.(?:csv|xlsx?)", re.IGNORECASE)
    files = sorted(p for p in folder.iterdir() if p.is_file() and form.fullmatch(p.name))
    plain = {file.stem for file in files if file.suffix.lower() == ".csv"}
    return [file for file in files if file.suffix.lower() == ".csv" or file.stem not in plain]


def read_sheet(file: Path) -> list[tuple[int, Row]]:
    """Return the rows of a sheet by the names of its columns, with the number of each row.

    Args:
        file: the first row names the columns; quotes and spaces around names and values are cut.

    Raises:
        ValueError: a row with another number of values than there are columns.
        ImportError: an Excel file, and the packages that read it are missing.
    """
    if file.suffix.lower() != ".csv":
        return _read_excel(file)
    rows = csv.reader(io.StringIO(read_text(file), newline=""))
    names = [_plain(name) for name in next(rows, [])]
    found = []
    for words in rows:
        if not any(words):
            continue
        if len(words) != len(names):
            raise ValueError(
                f"{file}, line {rows.line_num}: a line must have {len(names)} values, got "
                f"{len(words)}"
            )
        found.append((rows.line_num, dict(zip(names, map(_plain, words), strict=True))))
    return found


def column(rows: list[tuple[int, Row]], name: str, file: Path) -> str:
    """Return the column of this name in any spelling of case.

    Raises:
        ValueError: there is no such column.
    """
    names = list(rows[0][1]) if rows else []
    for found in names:
        if found.lower() == name.lower():
            return found
    raise ValueError(f"{file}, line 1: the columns must include {name}, got {', '.join(names)}")


def _read_excel(file: Path) -> list[tuple[int, Row]]:
    try:
        import pandas as pd

        table = pd.read_excel(file, dtype=str).fillna("")
    except ImportError as error:
        raise ImportError(
            f"{file} is an Excel file: save it as csv, or pip install pandas openpyxl ({error})"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as an Excel file: {error}") from error
    names = [_plain(str(name)) for name in table.columns]
    values = (map(_plain, map(str, row)) for row in table.to_numpy())
    return [(n, dict(zip(names, row, strict=True))) for n, row in enumerate(values, start=2)]


def _plain(word: str) -> str:
    return word.strip().strip("\"'").strip()
