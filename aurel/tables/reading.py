"""Files and frames as tables of AUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aurel.facs import AUSet
from aurel.tables.au_table import Account, AUTable
from aurel.tables.cells import to_numbers
from aurel.tables.columns import TOOLS, AUColumn, Kind, Tool, au_columns, meanings, tool_of
from aurel.tables.kinds import LETTERS, Reading, interpret, labels_of
from aurel.tables.rows import frames_of, names_of, number_column, times_of, tracks_of
from aurel.tables.text_file import TextTable, decode, find_header, read_columns

MIN_CONFIDENCE = 0.75


@dataclass(frozen=True)
class ReadOptions:
    """How to read a table.

    Args:
        tool: who wrote it; "auto" decides by the names of columns.
        au_kind: "presence", "probability", "intensity", or "auto": the first of these that the
            table holds.
        min_confidence: rows of lower confidence than this become unknown, where there is a column
            of confidences.
        threshold: value from which an AU counts as present; None for the default of the kind, see
            `aurel.tables.kinds.interpret`.
        person: name of the column of people; or "file:" and a regular expression whose first group,
            in the file's name without its ending, is the person. None for a column such as
            "person" or "subject", else the recording: each video or image is a person.
        condition: the same for conditions; None for a column "condition" or "task", else none.
        fps: frames a second; then times are frame / fps, whatever the table says.

    Raises:
        ValueError: an unknown tool or kind, or a number out of its range.
    """

    tool: Tool | Literal["auto"] = "auto"
    au_kind: Kind | Literal["auto"] = "auto"
    min_confidence: float = MIN_CONFIDENCE
    threshold: float | None = None
    person: str | None = None
    condition: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("tool", self.tool, TOOLS),
            ("au_kind", self.au_kind, get_args(Kind)),
        ):
            if value != "auto" and value not in known:
                raise ValueError(f"{name} must be auto, {', '.join(known)}, got {value!r}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")


def read_file(path: Path, options: ReadOptions) -> AUTable:
    """Return the table in a file; see `AUTable.read`."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return read_frame(_parquet(path), str(path), options)
    text = decode(path.read_bytes(), path)
    header = find_header(text, lambda cells: len(au_columns(cells)))
    if header is None:
        raise ValueError(
            f"{path}: no column of an AU (AU12, AU12_r, au_12, 'Action Unit 12 - ...'), "
            f"the first line is {text.strip().splitlines()[0][:80]!r}"
        )
    names = header[2]
    needed = {column.index for column in au_columns(names)} | set(meanings(names).values())
    needed |= {names.index(own) for own in (options.person, options.condition) if own in names}
    table = read_columns(text, path, header, sorted(needed))
    return _build(table, str(path), options, [f"{path}, line {line}" for line in table.lines])


def read_frame(
    frame: Mapping[str, Sequence[Any]] | Any, source: str, options: ReadOptions
) -> AUTable:
    """Return the table in a DataFrame or a dict of columns; see `AUTable.from_frame`."""
    header = [str(name).strip() for name in getattr(frame, "columns", frame)]
    cells = {
        index: [_as_cell(value) for value in np.asarray(frame[name]).tolist()]
        for index, name in enumerate(getattr(frame, "columns", frame))
    }
    if len(cells) != len(set(header)):
        raise ValueError(f"{source}: columns must have different names, got {header[:10]}")
    rows = len(next(iter(cells.values()), []))
    if not au_columns(header):
        raise ValueError(f"{source}: no column of an AU, such as AU12 or AU12_r, got {header[:10]}")
    table = TextTable(Path(source), tuple(header), cells, list(range(rows)), decimal_comma=False)
    return _build(table, source, options, [f"{source}, row {row}" for row in range(rows)])


def _as_cell(value: Any) -> str:
    if value is None or str(value) in ("nan", "<NA>", "NaT"):
        return ""
    return str(int(value) if isinstance(value, bool) else value).strip()


def _parquet(path: Path) -> Any:
    try:
        import pandas

        return pandas.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"{path}: Parquet needs pandas and pyarrow: pip install 'aurel-au[tables]'"
        ) from error


def _build(table: TextTable, source: str, options: ReadOptions, place: list[str]) -> AUTable:
    columns = au_columns(table.header)
    tool = tool_of(table.header, columns) if options.tool == "auto" else options.tool
    columns = _checked(columns, table, tool, source)
    if not place:
        raise ValueError(f"{source}: the table has a header and no rows")
    numbers = {
        column.index: to_numbers(
            table.columns[column.index],
            table.header[column.index],
            place,
            decimal_comma=table.decimal_comma,
            words=LETTERS if column.form == "letters" else None,
        )
        for column in columns
    }
    reading = interpret(columns, numbers, tool, options.au_kind, options.threshold, place)
    known = meanings(table.header, tool)
    empty = np.asarray(np.isnan(np.column_stack(list(numbers.values()))).all(1))
    failed, unsure = _unusable(table, known, options, place)
    values = reading.values.copy()
    values[failed | unsure] = np.nan
    recordings, persons, conditions = names_of(table, known, source, options)
    frame = frames_of(table, known, place)
    time = times_of(table, known, place, tool, options.fps, frame)
    track, persons, notes = tracks_of(table, known, recordings, persons, frame, tool, options)
    account = Account(
        source=source,
        tool=tool,
        kind=reading.kind,
        threshold=reading.threshold,
        rows=len(place),
        failed=int(failed.sum()),
        unsure=int((unsure & ~failed).sum()),
        empty=int((empty & ~failed & ~unsure).sum()),
        notes=(*_notes(reading), *notes),
    )
    result = AUTable(
        AUSet.of(list(reading.names)),
        values,
        labels_of(values, reading.threshold),
        person=persons,
        condition=conditions,
        track=track,
        frame=frame,
        time=time,
        source=recordings,
        accounts=(account,),
    )
    # Rows of iMotions without AUs are those of other sensors, not frames without a face.
    return (result.take(~empty) if tool == "imotions" else result).sorted()


def _checked(columns: list[AUColumn], table: TextTable, tool: Tool, source: str) -> list[AUColumn]:
    """Return the AU columns that can be used; raise where two say the same or one is no AU."""
    if tool == "openface3":
        if len(columns) != 8:
            raise ValueError(f"{source}: openface3 has 8 columns of AUs, got {len(columns)}")
        return [AUColumn(c.index, place, "", "plain") for place, c in enumerate(columns)]
    first: dict[tuple[int, str, str], AUColumn] = {}
    for column in columns:
        key = (column.number, column.side, column.form)
        if key in first:
            names = [table.header[c.index] for c in (first[key], column)]
            raise ValueError(
                f"{source}: an AU must have one column of a kind, got {names[0]!r} and "
                f"{names[1]!r} (columns {first[key].index + 1} and {column.index + 1})"
            )
        first[key] = column
        try:
            AUSet.of([column.name])
        except ValueError as error:
            raise ValueError(
                f"{source}: column {table.header[column.index]!r}: {error}; the eight outputs of "
                "OpenFace 3 are read by tool='openface3'"
            ) from None
    return columns


def _unusable(
    table: TextTable, known: Mapping[str, int], options: ReadOptions, place: list[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows failed, and which are of low confidence."""
    marks = []
    for name in ("success", "confidence"):
        if name in known:
            marks.append(number_column(table, known[name], place))
        else:
            marks.append(np.ones(len(place)))
    success, confidence = marks
    has_confidence = "confidence" in known
    return success == 0, (confidence < options.min_confidence) & has_confidence


def _notes(reading: Reading) -> tuple[str, ...]:
    if not reading.left_out:
        return ()
    return (f"no {reading.kind} of {', '.join(reading.left_out)}: left out",)
