"""Predictions as CSV: a row a face and frame."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from aurel.vision.face_predictor import FacePrediction
from aurel.vision.inputs import Frame

BOX_COLUMNS = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceAngle")
"""py-feat's names; the box before it is turned, and its turn in degrees, clockwise."""


def columns(names: Sequence[str]) -> list[str]:
    """Return the CSV's columns for the AUs `names`."""
    present = [f"{name}_present" for name in names]
    return ["input", "frame", "time", "face", *BOX_COLUMNS, *names, *present]


class PredictionTable:
    """Writes rows to an open text file, and can take back those written last.

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
        """Write the faces of a frame, a row each; one row with empty fields where there is none."""
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
        """Return the place up to which rows are written, for `rewind`."""
        self._file.flush()
        return self._file.tell()

    def rewind(self, mark: int) -> None:
        """Take back what was written since `mark`."""
        self._file.flush()
        self._file.seek(mark)
        self._file.truncate()
