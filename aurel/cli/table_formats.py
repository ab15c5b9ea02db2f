"""Tables of results as text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurel.training.comparison import Line, ResultTable

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_MEAN = "Avg."


def as_text(table: ResultTable) -> str:
    """Return a table with aligned columns for the terminal."""
    grid = [_header(table), *(_cells(line, table.digits) for line in table.lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    rows = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in grid
    ]
    rule = "-" * max(map(len, rows))
    return "\n".join([rows[0], rule, *rows[1:], "", *table.notes]) + "\n"


def as_markdown(table: ResultTable) -> str:
    """Return a table of pipes."""
    header = _header(table)
    grid = [
        header,
        ["---", *["--:"] * (len(header) - 1)],
        *(_cells(line, table.digits) for line in table.lines),
    ]
    rows = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in grid]
    return "\n".join([*rows, "", *(f"- {note}" for note in table.notes)]) + "\n"


def as_csv(table: ResultTable) -> str:
    """Return a row for each line with four decimals, and its kind; an empty cell for no value."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "row", "kind", *table.aus, "mean"])
    for line in table.lines:
        numbers = ["" if math.isnan(value) else f"{value:.4f}" for value in line.values]
        writer.writerow([table.title, line.label.strip(), line.kind, *numbers])
    return file.getvalue()


def as_latex(table: ResultTable) -> str:
    """Return a tabular with the rules of the package booktabs, and the notes as comments."""
    columns = "l" + "r" * (len(table.aus) + 1)
    rows: list[str] = []
    for before, line in zip([None, *table.lines], table.lines, strict=False):
        if line.kind == "reported" and before is not None and before.kind != "reported":
            rows.append(r"\midrule")
        rows.append(_latex_row(_cells(line, table.digits)))
    return (
        "\n".join(
            [
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                _latex_row(_header(table)),
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                *(f"% {note}" for note in table.notes),
            ]
        )
        + "\n"
    )


def latex_escaped(text: str) -> str:
    """Return text in which LaTeX's special characters are printed as they are."""
    return "".join(_ESCAPES.get(character, character) for character in text)


FORMATS: Mapping[str, Callable[[ResultTable], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
}


def joined(tables: Sequence[ResultTable], form: str) -> str:
    """Return several tables in a format of `FORMATS`; CSV repeats no header."""
    texts = [FORMATS[form](table) for table in tables]
    if form != "csv":
        return "\n".join(texts)
    for index in range(1, len(tables)):
        if tables[index].aus == tables[index - 1].aus:
            texts[index] = texts[index].partition("\n")[2]
    return "".join(texts)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(latex_escaped(cell.strip()) for cell in cells) + r" \\"


def _header(table: ResultTable) -> list[str]:
    return [table.title, *map(short_name, table.aus), _MEAN]


def short_name(name: str) -> str:
    """Return the name of an AU as papers print it: "1" for "AU01", "12L" for "AU12L"."""
    return name.removeprefix("AU").lstrip("0") or name


def _cells(line: Line, digits: int) -> list[str]:
    numbers = ("-" if math.isnan(value) else f"{value:.{digits}f}" for value in line.values)
    return [line.label, *numbers]
