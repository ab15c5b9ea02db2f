"""Find, follow, align and cut out the faces of an input, and write its chips and its record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aurel.vision.align import Alignment, Chip, align_face, find_alignment
from aurel.vision.face_detector import Face, FaceDetector
from aurel.vision.file_names import shown
from aurel.vision.follow import FollowingDetector
from aurel.vision.frame import InputError
from aurel.vision.image import RGBImage
from aurel.vision.landmarks import LandmarkDetector, to_49
from aurel.vision.manifest import Outcome
from aurel.vision.preparation.main_person import main_person
from aurel.vision.preparation.records import (
    IMAGES,
    Row,
    chip_path,
    remove_results,
    rounded,
    write_record,
)
from aurel.vision.preparation.tasks import FrameTask, Shot, shots
from aurel.vision.tracks import FaceTracker
from aurel.vision.units import MediaTask, guarded
from aurel.vision.warp import move

ChipFormat = Literal["jpg", "png"]

QUALITY = 95
NO_FACE = "no face was found"
OTHER_PERSON = "the faces are those of other people"

AnyTask = MediaTask | FrameTask


@dataclass(frozen=True)
class ChipOptions:
    """The form of the chips.

    Args:
        out: folder of the results.
        alignment: name of an alignment of `aurel.vision.align`.
        size: side of a chip, pixels.
        kind: format of the files, "jpg" of quality 95 or "png".
        every: use one frame of a video file in `every`.
        margin: around the box of a face without points, as a fraction of its side.
        settings: hash of all settings, for the manifest.
    """

    out: Path
    alignment: str = "crop"
    size: int = 256
    kind: ChipFormat = "jpg"
    every: int = 1
    margin: float | None = None
    settings: str = ""


class UnitPreparer:
    """Prepares units of work; no file ends a run.

    Of a data set, a video shows one person, see `main_person`; of files, all faces are taken.

    Args:
        detector: finds the faces.
        mesh: finds 68 landmarks of a face for which there are none; None for no landmarks.
        options: form of the chips.
    """

    def __init__(
        self, detector: FaceDetector, mesh: LandmarkDetector | None, options: ChipOptions
    ) -> None:
        self.detector = detector
        self.mesh = mesh
        self.options = options
        self.alignment: Alignment = find_alignment(options.alignment)

    def __call__(self, unit: Sequence[AnyTask]) -> list[Outcome]:
        """Return what became of each input of a unit."""
        return [guarded(task, self.options.settings, self._run(task)) for task in unit]

    def _run(self, task: AnyTask) -> Callable[[Outcome], Outcome]:
        return lambda outcome: self._prepare(task, outcome)

    def _prepare(self, task: AnyTask, outcome: Outcome) -> Outcome:
        options = self.options
        remove_results(options.out, task.name)
        problems: list[str] = []
        hidden: dict[tuple[int, int], Path] = {}
        rows: list[Row] = []
        try:
            for row, image in self._rows(task, problems):
                rows.append(row)
                if image is not None:
                    place = row["frame"], row["person"]
                    hidden[place] = _hidden(options.out, task.name, place, options.kind)
                    write_chip(image, hidden[place])
            rows = _named(task, rows)
            # Each chip is in a record before it has its name: what a killed run leaves is known.
            write_record(options.out, task.name, rows)
            for row in rows:
                if "key" in row:
                    target = chip_path(options.out, row["key"], options.kind)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(hidden.pop((row["frame"], row["person"])), target)
        finally:
            for path in hidden.values():
                path.unlink(missing_ok=True)
        frames = len({row["frame"] for row in rows})
        counted = replace(outcome, frames=frames, faces=sum("key" in row for row in rows))
        if not problems:
            return counted
        reason = f"{outcome.input} is incomplete: {problems[0]}"
        return replace(counted, status="incomplete", reason=reason)

    def _rows(self, task: AnyTask, problems: list[str]) -> Iterator[tuple[Row, RGBImage | None]]:
        """Yield a row for each face with its chip, and one for each frame without a face."""
        find, tracker = FollowingDetector(self.detector), FaceTracker()
        for shot in shots(task, self.options.every, problems):
            row: Row = {"frame": shot.number, "time": round(shot.time, 3)}
            if shot.image is None:
                yield row | {"reason": shot.reason}, None
                continue
            find.time = shot.time
            try:
                faces = find(shot.image)
                people = tracker.update(faces, shot.time)
                for face, person in zip(faces, people, strict=True):
                    described, image = self._chip(shot, shot.image, face)
                    yield row | {"person": person} | described, image
            except ValueError as error:
                raise InputError(f"{shown(task.input)}: frame {shot.number}: {error}") from error
            if not faces:
                yield row | {"reason": NO_FACE}, None

    def _chip(self, shot: Shot, image: RGBImage, face: Face) -> tuple[Row, RGBImage]:
        options = self.options
        chip = align_face(image, face, self.alignment, options.size, margin=options.margin)
        landmarks, by = self._landmarks(shot, image, face)
        described = {
            "box": rounded([face.x, face.y, face.width, face.height, face.angle]),
            "score": None if face.confidence is None else round(face.confidence, 4),
            "matrix": rounded(chip.matrix, 6),
            "points": _in_chip(None if face.points is None else np.array(face.points), chip),
            "landmarks": _in_chip(landmarks, chip),
            "by": by,
        }
        return described, chip.image

    def _landmarks(
        self, shot: Shot, image: RGBImage, face: Face
    ) -> tuple[NDArray[np.float64] | None, str]:
        """Return 49 landmarks in the picture, or None, and their origin."""
        if shot.points is not None and np.isfinite(shot.points).any():
            return shot.points.astype(float), "owner"
        if self.mesh is not None:
            return to_49(self.mesh(image, face)), "mesh"
        return None, ""


def write_chip(image: RGBImage, path: Path) -> None:
    """Write an (S, S, 3) uint8 RGB chip in the format of the suffix, and wait for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if path.suffix == ".jpg":
            Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
        else:
            Image.fromarray(image).save(file, "PNG")
        file.flush()
        os.fsync(file.fileno())


def _named(task: AnyTask, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the keys of their chips, or the reason why a face has none."""
    faces = [row for row in rows if "person" in row]
    if not isinstance(task, FrameTask):
        for row in faces:
            row["key"] = f"{task.name}/{row['person']}/{row['frame']}"
        return list(rows)
    people = main_person((row["frame"], row["person"], max(row["box"][2:4])) for row in faces)
    for row in faces:
        if row["person"] in people:
            row["key"] = f"{task.name}/{row['frame']}"
    found = {row["frame"] for row in faces if "key" in row}
    named: dict[int, Row] = {}
    for row in rows:
        if "key" in row or "reason" in row:
            named[row["frame"]] = row
        elif row["frame"] not in found:
            time = row["time"]
            named[row["frame"]] = {"frame": row["frame"], "time": time, "reason": OTHER_PERSON}
    return list(named.values())


def _hidden(out: Path, name: str, place: tuple[int, int], kind: str) -> Path:
    """Return the path of a chip before its record is complete."""
    frame, person = place
    return out / IMAGES / name / f".{frame}-{person}.partial.{kind}"


def _in_chip(points: NDArray[np.float64] | None, chip: Chip) -> list[list[float | None]] | None:
    return None if points is None else rounded(move(chip.matrix, points))
