"""Predict many files: write the rows and the annotated copy of each, or report its error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from aurel.models.windows import windows
from aurel.vision.annotate import Annotator
from aurel.vision.clip_predictor import ClipPredictor
from aurel.vision.face_predictor import FacePrediction, FacePredictor, FoundFaces
from aurel.vision.inputs import Frame, InputError, Video, is_video, read_photo
from aurel.vision.outputs import VideoWriter, write_picture
from aurel.vision.prediction_table import PredictionTable

Shot: TypeAlias = tuple[Path, Frame, FoundFaces]

MAX_PIXELS = 64_000_000
"""Limit of the pixels in memory at once, three bytes each, without the frames that a model of clips
needs on each side."""


class FilePrediction:
    """Runs a predictor over photographs and videos.

    Args:
        predictor: finds the faces and predicts their AUs.
        table: receives the rows.
        targets: path of the annotated copy of each input; inputs without a path get no copy.
        every: use one video frame in `every`.
        on_error: called for each file that cannot be read, or in which the detector returns a box
            that cannot be cut out; the rows and the copy of this file are removed.
        on_progress: called after each step with the path, the number of frames done, and the
            number of all frames, or None if unknown.

    Attributes:
        failed: number of calls of `on_error`.
        faces: number of faces in the other files.
    """

    def __init__(
        self,
        predictor: FacePredictor,
        table: PredictionTable,
        targets: Mapping[Path, Path],
        *,
        every: int = 1,
        on_error: Callable[[InputError], None],
        on_progress: Callable[[Path, int, int | None], None],
    ) -> None:
        self.predictor = predictor
        self.table = table
        self.targets = targets
        self.every = every
        self.on_error = on_error
        self.on_progress = on_progress
        self.failed = 0
        self.faces = 0

    def run(self, paths: Iterable[Path]) -> None:
        """Predict the files in order: photographs in batches, videos one after the other."""
        for video, group in groupby(paths, is_video):
            if video:
                for path in group:
                    self._video(path)
            else:
                for shots in in_batches(self._photos(group), self.predictor.batch_size):
                    self._draw_photos(shots, self._predict(shots))

    def _photos(self, paths: Iterable[Path]) -> Iterator[Shot]:
        for path in paths:
            try:
                shot = self._shot(path, Frame(0, 0.0, read_photo(path)))
            except InputError as error:
                self._fail(path, error)
            else:
                yield shot

    def _shot(self, path: Path, frame: Frame) -> Shot:
        try:
            return path, frame, self.predictor.find(frame.image)
        except ValueError as error:
            raise InputError(f"{path}: frame {frame.index}: {error}") from error

    def _draw_photos(
        self, shots: Sequence[Shot], predicted: Sequence[Sequence[FacePrediction]]
    ) -> None:
        for (path, frame, _), faces in zip(shots, predicted, strict=True):
            if path in self.targets:
                annotator = self._annotator(frame, len(faces))
                write_picture(annotator(frame.image, faces, path.name), self.targets[path])
            self.on_progress(path, 1, 1)

    def _video(self, path: Path) -> None:
        mark, faces_before = self.table.mark(), self.faces
        done = 0
        draw: Callable[[Frame, Sequence[FacePrediction]], None] | None = None
        try:
            with Video(path, self.every) as video, ExitStack() as stack:
                total = video.frame_count // self.every or None
                shots = (self._shot(path, frame) for frame in video)
                for batch, predicted in self._pieces(shots, video.pixels):
                    self._enter(batch, predicted)
                    if path in self.targets and draw is None:
                        annotator = self._annotator(batch[0][1], max(1, *map(len, predicted)))
                        rate = video.fps / self.every
                        writer = VideoWriter(self.targets[path], annotator.size, rate)
                        stack.enter_context(writer)
                        draw = _drawer(annotator, writer)
                    if draw is not None:
                        for (_, frame, _), faces in zip(batch, predicted, strict=True):
                            draw(frame, faces)
                    done += len(batch)
                    self.on_progress(path, done, total)
        except InputError as error:
            self.table.rewind(mark)
            self.faces = faces_before
            self._fail(path, error)

    def _pieces(
        self, shots: Iterable[Shot], pixels: int
    ) -> Iterator[tuple[list[Shot], list[list[FacePrediction]]]]:
        """Yield pieces of a video: their frames, and the predictions for each frame."""
        predictor = self.predictor
        if isinstance(predictor, ClipPredictor):
            length = max(1, min(predictor.batch_size, MAX_PIXELS // pixels))
            for window, start, stop in windows(shots, length, predictor.context):
                found = [found for _, _, found in window]
                yield window[start:stop], predictor.predict_piece(found, start, stop)
        else:
            for batch in in_batches(shots, predictor.batch_size):
                yield batch, predictor.predict([found for _, _, found in batch])

    def _predict(self, shots: Sequence[Shot]) -> list[list[FacePrediction]]:
        predicted = self.predictor.predict([found for _, _, found in shots])
        self._enter(shots, predicted)
        return predicted

    def _enter(self, shots: Sequence[Shot], predicted: Sequence[Sequence[FacePrediction]]) -> None:
        for (path, frame, _), faces in zip(shots, predicted, strict=True):
            self.table.add(path, frame, faces)
            self.faces += len(faces)

    def _annotator(self, frame: Frame, faces: int) -> Annotator:
        height, width = frame.image.shape[:2]
        return Annotator(self.predictor.names, width, height, faces, self.predictor.threshold)

    def _fail(self, path: Path, error: InputError) -> None:
        self.failed += 1
        self.on_progress(path, 1, 1)
        self.on_error(error)


def _drawer(
    annotator: Annotator, writer: VideoWriter
) -> Callable[[Frame, Sequence[FacePrediction]], None]:
    def draw(frame: Frame, faces: Sequence[FacePrediction]) -> None:
        writer.write(annotator(frame.image, faces, f"{frame.time:.2f} s"))

    return draw


def in_batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Yield groups of at most `size` shots and about `MAX_PIXELS` pixels."""
    batch: list[Shot] = []
    pixels = 0
    for shot in shots:
        batch.append(shot)
        pixels += shot[1].image.size // 3
        if len(batch) == size or pixels >= MAX_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
