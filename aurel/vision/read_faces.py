"""Read the faces of photographs and videos, and their AUs, into a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from aurel.data.preprocessing import Preprocessing
from aurel.models.provenance import warning_of
from aurel.models.windows import windows
from aurel.vision.clip_predictor import ClipPredictor
from aurel.vision.detectors import DetectorName, make_detector
from aurel.vision.face_detector import POINT_NAMES, Face, FaceDetector, whole_image
from aurel.vision.face_predictor import FacePredictor, preprocessing_of
from aurel.vision.file_names import shown
from aurel.vision.image import RGBImage
from aurel.vision.image_model import ImageModel, load_face_model, load_released_model
from aurel.vision.inputs import (
    FoundFile,
    Frame,
    InputError,
    Video,
    find_files,
    is_photo,
    read_photo,
)
from aurel.vision.prediction_table import BOX_COLUMNS
from aurel.vision.tracks import FaceTracker

if TYPE_CHECKING:
    import pandas

    from aurel.models.base import AUModel

Path_: TypeAlias = "str | os.PathLike[str]"
Probs: TypeAlias = "NDArray[np.floating] | None"

PLACE_COLUMNS = ("input", "frame", "time", "face", "person")
POINT_COLUMNS = tuple(f"{name}{axis}" for name in POINT_NAMES for axis in "XY")
FACE_COLUMNS = (*PLACE_COLUMNS, *BOX_COLUMNS, "FaceScore", *POINT_COLUMNS)

FRAMES = 32
"""Frames of a video in a batch."""


def read_faces(
    paths: Path_ | RGBImage | Sequence[Path_ | RGBImage],
    *,
    model: AUModel | Path_ | None = None,
    detector: FaceDetector | DetectorName = "auto",
    min_face: float | None = None,
    min_confidence: float | None = None,
    every: int = 1,
    device: str | torch.device = "cpu",
) -> pandas.DataFrame:
    """Return the faces of photographs and videos, with the probabilities of their AUs, as a table.

    A row is a face in a frame. A frame without a face has one row, with missing values from the
    column "face" on. Columns: "input", "frame" from 0, "time" in seconds, "face" from 0, left to
    right, and "person", the number of the face's track in its video; the box before its rotation,
    "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight" in pixels, and "FaceAngle" in
    degrees, clockwise; "FaceScore", the confidence of the detector; "RightEyeX", "RightEyeY",
    "LeftEyeX", ... "MouthLeftY", the points in pixels; the AUs by their names, in [0, 1].

    Args:
        paths: a photograph, video or folder, a picture (H, W, 3) uint8 RGB, or a sequence of these;
            the input of a picture is its number in the sequence.
        model: a model, the path of a checkpoint, or the name of released weights; None for no AUs.
        detector: a detector or its name, see `make_detector`.
        min_face, min_confidence: options of a detector that is named.
        every: read one frame of a video in `every`.
        device: device of the model.

    Warns:
        UserWarning: a file of a folder is left out, since it cannot be read; a video is damaged, of
            which the frames that could be read are in the table.

    Raises:
        ValueError: a bad option, or a path that is given and cannot be read.
        ImportError: pandas or another package is missing.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError("read_faces needs pandas: pip install 'aurel-au[vision]'") from error
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    detector = _detector(detector, min_face, min_confidence)
    predictor = None if model is None else _predictor(model, detector, device)
    rows: list[list[Any]] = []
    for source, frames in _inputs(paths, every):
        tracker = FaceTracker()
        for frame, faces, probs in _read(frames, predictor, detector):
            people = tracker.update(faces, frame.time)
            rows += _rows(source, frame, faces, people, probs)
    names = () if predictor is None else predictor.names
    return _table(rows, [*FACE_COLUMNS, *names])


def _table(rows: list[list[Any]], names: list[str]) -> pandas.DataFrame:
    import pandas

    padded = [row + [None] * (len(names) - len(row)) for row in rows]
    table = pandas.DataFrame(padded, columns=names)
    whole = {"frame": "int64", "face": "Int64", "person": "Int64"}
    numbers = {name: "float64" for name in table.columns if name not in {"input", *whole}}
    return table.astype({**whole, **numbers})


def _detector(
    detector: FaceDetector | DetectorName, min_face: float | None, min_confidence: float | None
) -> FaceDetector:
    if isinstance(detector, str):
        return make_detector(detector, min_face=min_face, min_confidence=min_confidence)
    if min_face is not None or min_confidence is not None:
        raise ValueError(
            "min_face and min_confidence must be None for a detector object, "
            f"got {min_face} and {min_confidence}"
        )
    return detector


def _predictor(
    model: AUModel | Path_, detector: FaceDetector, device: str | torch.device
) -> FacePredictor:
    if isinstance(model, str | os.PathLike):
        is_file = Path(model).is_file() or isinstance(model, os.PathLike)
        loaded = load_face_model(Path(model)) if is_file else load_released_model(str(model))
    else:
        size = getattr(model, "image_size", None) or Preprocessing.size
        about = preprocessing_of(model) or Preprocessing.of({"size": size})
        clips = getattr(model, "inputs", "images") == "clips"
        loaded = ImageModel(model, about.size, about.chip, clips, about)
    if warning := warning_of(loaded.model):
        warnings.warn(warning, stacklevel=3)
    kind = ClipPredictor if loaded.takes_clips else FacePredictor
    return kind(
        loaded.model,
        preprocessing=loaded.preprocessing,
        detector=detector,
        margin=loaded.margin(0.0) if detector is whole_image else None,
        device=device,
    )


def _inputs(
    paths: Path_ | RGBImage | Sequence[Path_ | RGBImage], every: int
) -> Iterator[tuple[str, Iterator[Frame]]]:
    """Yield the name and the frames of each input."""
    if isinstance(paths, str | os.PathLike | np.ndarray) or not isinstance(paths, Iterable):
        paths = [paths]
    for number, item in enumerate(paths):
        if isinstance(item, np.ndarray):
            yield str(number), iter([Frame(0, 0.0, item)])
            continue
        if not isinstance(item, str | os.PathLike):
            raise TypeError(
                "paths must be a path, a picture (H, W, 3) uint8 or a sequence of these, got "
                f"{type(item).__name__}"
            )
        found = find_files([os.fspath(item)])
        for line in found.errors:
            warnings.warn(line, stacklevel=3)
        for file in found.files:
            yield shown(file.path), _frames(file, every)


def _frames(file: FoundFile, every: int) -> Iterator[Frame]:
    try:
        if is_photo(file.path):
            yield Frame(0, 0.0, read_photo(file.path))
            return
        with Video(file.path, every) as video:
            yield from video
        if video.problem is not None:
            warnings.warn(f"{shown(file.path)} is incomplete: {video.problem}", stacklevel=3)
    except InputError as error:
        if file.named:
            raise
        if file.must_be_media:
            warnings.warn(str(error), stacklevel=3)


def _read(
    frames: Iterator[Frame], predictor: FacePredictor | None, detector: FaceDetector
) -> Iterator[tuple[Frame, list[Face], list[Probs]]]:
    """Yield each frame without its picture, its faces and their probabilities."""
    if predictor is None:
        for frame in frames:
            faces = detector(frame.image)
            yield frame, faces, [None] * len(faces)
        return
    context = predictor.context if isinstance(predictor, ClipPredictor) else 0
    found = ((_without_picture(frame), predictor.find(frame.image)) for frame in frames)
    for window, start, stop in windows(found, FRAMES, context):
        crops = [seen for _, seen in window]
        if isinstance(predictor, ClipPredictor):
            predicted = predictor.predict_piece(crops, start, stop)
        else:
            predicted = predictor.predict(crops[start:stop])
        for (frame, seen), results in zip(window[start:stop], predicted, strict=True):
            yield frame, seen.faces, [result.probs for result in results]


def _without_picture(frame: Frame) -> Frame:
    return Frame(frame.index, frame.time, np.empty((0, 0, 3), dtype=np.uint8))


def _rows(
    source: str,
    frame: Frame,
    faces: Sequence[Face],
    people: Sequence[int],
    probs: Sequence[Probs],
) -> list[list[Any]]:
    place = [source, frame.index, frame.time]
    if not faces:
        return [place]
    rows = []
    for number, (face, person, values) in enumerate(zip(faces, people, probs, strict=True)):
        points = face.points or ((np.nan, np.nan),) * len(POINT_NAMES)
        box = [face.x, face.y, face.width, face.height, face.angle, face.confidence]
        flat = [value for point in points for value in point]
        rows.append([*place, number, person, *box, *flat, *([] if values is None else values)])
    return rows
