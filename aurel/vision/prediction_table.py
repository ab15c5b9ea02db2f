"""Write the predictions of one input as CSV or Parquet, with a row for each face in each frame."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TextIO

from aurel.files import atomic_path
from aurel.vision.face_detector import POINT_NAMES
from aurel.vision.face_predictor import FacePrediction
from aurel.vision.file_names import shown
from aurel.vision.frame import Frame

BOX_COLUMNS = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceAngle")
"""Names of py-feat: the box before its rotation, and the rotation in degrees, clockwise."""
POINT_COLUMNS = tuple(f"{name}{axis}" for name in POINT_NAMES for axis in "XY")

TableFormat = Literal["csv", "parquet"]
ROWS_IN_MEMORY = 10_000
"""Rows of a row group of Parquet, which are in memory until it is written."""


def columns(names: Sequence[str]) -> list[str]:
    """Return the columns of the table for the AUs `names`."""
    present = [f"{name}_present" for name in names]
    place = ["input", "frame", "time", "face", "person"]
    return [*place, *BOX_COLUMNS, "FaceScore", *POINT_COLUMNS, *names, *present]


def row_of(
    source: str, frame: Frame, number: int, person: int, prediction: FacePrediction
) -> list[Any]:
    """Return the row of a face; None where the detector gives no confidence or no points."""
    face = prediction.face
    box = (face.x, face.y, face.width, face.height, face.angle)
    points = face.points or ((math.nan, math.nan),) * len(POINT_NAMES)
    return [
        *(source, frame.index, round(frame.time, 4), number, person),
        *(round(float(value), 1) for value in box),
        None if face.confidence is None else round(float(face.confidence), 4),
        *(None if math.isnan(v) else round(float(v), 1) for point in points for v in point),
        *(None if math.isnan(prob) else round(float(prob), 6) for prob in prediction.probs),
        *(int(present) for present in prediction.present),
    ]


def check_parquet() -> None:
    """Raise unless Parquet can be written.

    Raises:
        ImportError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow: pip install 'aurel-au[tables]', or use --format csv"
        ) from error


class PredictionTable:
    """Writes the table of one input: a context manager.

    The file is moved to `path` at the end of the block; after an error it is removed.

    Args:
        path: the file to write.
        source: the input.
        names: names of the AUs.
        kind: its format.
    """

    def __init__(self, path: Path, source: Path, names: Sequence[str], kind: TableFormat) -> None:
        self._path = path
        self._source = shown(source)
        self._columns = columns(names)
        self._open = _CSVRows if kind == "csv" else _ParquetRows
        self._stack = ExitStack()

    def add(
        self, frame: Frame, predictions: Sequence[FacePrediction], persons: Sequence[int]
    ) -> None:
        """Write a row for each face of a frame, or one row with empty fields if there is none."""
        for number, (prediction, person) in enumerate(zip(predictions, persons, strict=True)):
            self._rows.add(row_of(self._source, frame, number, person, prediction))
        if not predictions:
            start = [self._source, frame.index, round(frame.time, 4)]
            self._rows.add(start + [None] * (len(self._columns) - len(start)))

    def __enter__(self) -> PredictionTable:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._rows: _Rows = self._open(temporary, self._columns)
            stack.callback(self._rows.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class _Rows(Protocol):
    def add(self, row: list[Any]) -> None: ...
    def close(self) -> None: ...


class _CSVRows:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file: TextIO = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(names)

    def add(self, row: list[Any]) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


class _ParquetRows:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet

        integers = {"frame", "face", "person", *(n for n in names if n.endswith("_present"))}
        kinds = [pyarrow.int64() if name in integers else pyarrow.float64() for name in names]
        kinds[0] = pyarrow.string()
        self._schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
        self._record_batch = pyarrow.record_batch
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[list[Any]] = []

    def add(self, row: list[Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            cells = [[row[index] for row in self._rows] for index in range(len(self._schema))]
            self._writer.write_batch(self._record_batch(cells, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()
