"""Write predictions as CSV, with one row for each face in each frame."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from aurel.vision.face_predictor import FacePrediction
from aurel.vision.inputs import Frame

BOX_COLUMNS = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceAngle")
"""Names of py-feat: the box before its rotation, and the rotation in degrees, clockwise."""


def columns(names: Sequence[str]) -> list[str]:
    """Return the columns of the CSV file for the AUs `names`."""
    present = [f"{name}_present" for name in names]
    return ["input", "frame", "time", "face", *BOX_COLUMNS, *names, *present]


class PredictionTable:
    """Writes rows to an open text file, and can remove the last ones.

    Args:
        file: opened for reading and writing with ``newline=""``.
        names: names of the AUs.
    """

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._file = file
        self._columns = columns(names)
        self._writer = csv.writer(file)
        self._writer.writerow(self._columns)

    def add(self, path: Path, frame: Frame, predictions: Sequence[FacePrediction]) -> None:
        """Write a row for each face of a frame, or one row with empty fields if there is none."""
        start = [str(path), frame.index, f"{frame.time:.4f}"]
        for number, prediction in enumerate(predictions):
            face = prediction.face
            box = (face.x, face.y, face.width, face.height, face.angle)
            self._writer.writerow(
                start
                + [number]
                + [f"{value:.1f}" for value in box]
                + [f"{prob:.6f}" for prob in prediction.probs]
                + [int(present) for present in prediction.present]
            )
        if not predictions:
            self._writer.writerow(start + [""] * (len(self._columns) - len(start)))

    def mark(self) -> int:
        """Return the position after the last row, for `rewind`."""
        self._file.flush()
        return self._file.tell()

    def rewind(self, mark: int) -> None:
        """Remove the rows that were written after `mark`."""
        self._file.flush()
        self._file.seek(mark)
        self._file.truncate()
