"""Predict one unit of work, a video or some photographs: write a table and an annotated copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from aurel.models.provenance import SYNTHETIC_ONLY, warning_of
from aurel.models.windows import windows
from aurel.vision.annotate import Annotator
from aurel.vision.clip_predictor import ClipPredictor
from aurel.vision.face_predictor import FacePrediction, FacePredictor, FoundFaces
from aurel.vision.file_names import shown
from aurel.vision.follow import FollowingPredictor
from aurel.vision.frame import Frame, InputError, NotMediaError
from aurel.vision.inputs import FoundFile, is_photo
from aurel.vision.manifest import Outcome, Status
from aurel.vision.outputs import VideoWriter, write_picture
from aurel.vision.photos import read_photo
from aurel.vision.pipeline import ahead, mapped
from aurel.vision.prediction_table import PredictionTable, TableFormat
from aurel.vision.tracks import FaceTracker
from aurel.vision.videos import Video

Shot: TypeAlias = tuple[Frame, FoundFaces]
Piece: TypeAlias = tuple[list[Shot], list[list[FacePrediction]]]

MAX_PIXELS = 32_000_000
"""Limit of the pixels in a batch, three bytes each, without the frames that a model of clips needs
on each side. Batches do not depend on the number of threads, and neither do the results."""

AHEAD = 4
"""Frames that are decoded and searched for faces while the model runs."""


@dataclass(frozen=True)
class Task:
    """An input and the name of its results.

    Args:
        file: the input.
        name: relative path of the results, without suffix.
        photo: whether its content is a photograph.
    """

    file: FoundFile
    name: str
    photo: bool


Unit: TypeAlias = tuple[Task, ...]


@dataclass(frozen=True)
class Results:
    """The results to write.

    Args:
        tables: folder of the tables.
        annotated: folder of the annotated copies, or None to write none.
        kind: format of the tables.
        every: use one video frame in `every`.
        settings: hash of all settings, for the manifest.
    """

    tables: Path
    annotated: Path | None
    kind: TableFormat = "csv"
    every: int = 1
    settings: str = ""


def units_of(files: Iterable[tuple[FoundFile, str]], photos: int) -> Iterator[Unit]:
    """Yield the units of work: a video, or up to `photos` photographs in a row.

    Args:
        files: inputs and the names of their results.
        photos: most photographs of a unit, whose faces share batches.
    """
    waiting: list[Task] = []
    for file, name in files:
        try:
            photo = is_photo(file.path)
        except InputError:
            photo = False  # reading it as a video reports the error
        if not photo:
            yield (Task(file, name, photo),)
            continue
        waiting.append(Task(file, name, photo))
        if len(waiting) == photos:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


class UnitPredictor:
    """Predicts units of work and writes their results; no file ends a run.

    Args:
        predictor: finds the faces and predicts their AUs.
        results: where and how to write.
        threads: batches of a video that the model takes at the same time.
        on_progress: called with the path, the number of frames done, and the number of all frames,
            or None if unknown.
    """

    def __init__(
        self,
        predictor: FacePredictor,
        results: Results,
        *,
        threads: int = 1,
        on_progress: Callable[[Path, int, int | None], None] = lambda *_: None,
    ) -> None:
        self.predictor = predictor
        self.results = results
        self.threads = threads
        self.on_progress = on_progress

    def __call__(self, unit: Unit) -> list[Outcome]:
        """Return what became of each input of a unit."""
        if len(unit) == 1 and not unit[0].photo:
            return [self._guarded(unit[0], self._video)]
        return list(self._photos(unit))

    def _guarded(self, task: Task, predict: Callable[[Task, Outcome], Outcome]) -> Outcome:
        """Return the outcome of a task; errors become its reason."""
        outcome = Outcome(shown(task.file.path), "done", task.name, settings=self.results.settings)
        try:
            file = os.stat(task.file.path)
            outcome = replace(outcome, size=file.st_size, modified=file.st_mtime_ns)
        except OSError:
            pass  # reading the file reports the error
        try:
            return predict(task, outcome)
        except NotMediaError as error:
            status: Status = "failed" if task.file.must_be_media else "skipped"
            return replace(outcome, status=status, reason=str(error))
        except InputError as error:
            return replace(outcome, status="failed", reason=str(error))
        except OSError as error:
            reason = f"{outcome.input}: {error.strerror or error}"
            if error.filename is not None:
                reason += f": {shown(error.filename)}"
            return replace(outcome, status="failed", reason=reason)
        except Exception as error:
            reason = f"{outcome.input}: {type(error).__name__}: {error}"
            return replace(outcome, status="failed", reason=" ".join(reason.split()))
        finally:
            self.on_progress(task.file.path, 1, 1)

    def _shot(self, path: Path, frame: Frame, find: Callable[[Frame], FoundFaces]) -> Shot:
        try:
            found = find(frame)
        except ValueError as error:
            raise InputError(f"{shown(path)}: frame {frame.index}: {error}") from error
        if self.results.annotated is None:
            frame = replace(frame, image=frame.image[:1, :1].copy())  # frees the picture
        return frame, found

    def _table(self, task: Task) -> PredictionTable:
        path = self.results.tables / f"{task.name}.{self.results.kind}"
        return PredictionTable(path, task.file.path, self.predictor.names, self.results.kind)

    def _photos(self, unit: Unit) -> Iterator[Outcome]:
        shots: dict[str, Shot] = {}

        def read(task: Task, outcome: Outcome) -> Outcome:
            frame = Frame(0, 0.0, read_photo(task.file.path))
            shots[task.name] = self._shot(
                task.file.path, frame, lambda frame: self.predictor.find(frame.image)
            )
            return outcome

        for task in unit:
            outcome = self._guarded(task, read)
            if outcome.status != "done":
                yield outcome
            pixels = sum(frame.image.size // 3 for frame, _ in shots.values())
            if pixels >= MAX_PIXELS or task is unit[-1]:
                yield from self._write_photos([t for t in unit if t.name in shots], shots)
                shots.clear()

    def _write_photos(self, tasks: Sequence[Task], shots: dict[str, Shot]) -> Iterator[Outcome]:
        found = [shots[task.name][1] for task in tasks]
        predicted: dict[str, list[FacePrediction]] = {}

        def write(task: Task, outcome: Outcome) -> Outcome:
            if not predicted:
                names = [task.name for task in tasks]
                predicted.update(zip(names, self.predictor.predict(found), strict=True))
            frame, faces = shots[task.name][0], predicted[task.name]
            if self.results.annotated is not None:
                drawn = self._annotator(frame, len(faces))
                target = self.results.annotated / f"{task.name}.png"
                write_picture(drawn(frame.image, faces, shown(task.file.path.name)), target)
            with self._table(task) as table:
                table.add(frame, faces, range(len(faces)))
            return replace(outcome, frames=1, faces=len(faces))

        for task in tasks:
            yield self._guarded(task, write)

    def _video(self, task: Task, outcome: Outcome) -> Outcome:
        frames = faces = 0
        tracker = FaceTracker()
        path = task.file.path
        with Video(path, self.results.every) as video, ExitStack() as stack:
            following = FollowingPredictor(self.predictor)
            found_ahead = ahead((self._shot(path, frame, following.find) for frame in video), AHEAD)
            # Threads that read the video end before it is closed.
            shots = stack.enter_context(closing(found_ahead))
            pieces = stack.enter_context(closing(self._pieces(shots, video.pixels)))
            first = next(pieces)
            table = stack.enter_context(self._table(task))
            draw = None
            if self.results.annotated is not None:
                draw = self._drawer(
                    self.results.annotated / f"{task.name}.mp4", video, first, stack
                )
            for batch, predicted in chain([first], pieces):
                for (frame, _), found in zip(batch, predicted, strict=True):
                    numbers = tracker.update([prediction.face for prediction in found], frame.time)
                    table.add(frame, found, numbers)
                    faces += len(found)
                    if draw is not None:
                        draw(frame, found)
                frames += len(batch)
                self.on_progress(path, frames, video.frame_count // self.results.every or None)
        counted = replace(outcome, frames=frames, faces=faces)
        if video.problem is None:
            return counted
        reason = f"{outcome.input} is incomplete: {video.problem}"
        return replace(counted, status="incomplete", reason=reason)

    def _pieces(self, shots: Iterable[Shot], pixels: int) -> Generator[Piece, None, None]:
        """Yield pieces of a video: their frames, and the predictions for each frame."""
        predictor = self.predictor
        length = max(1, min(predictor.batch_size, MAX_PIXELS // pixels))
        if isinstance(predictor, ClipPredictor):
            for window, start, stop in windows(shots, length, predictor.context):
                found = [found for _, found in window]
                yield window[start:stop], predictor.predict_piece(found, start, stop)
        else:
            yield from mapped(
                lambda batch: predictor.predict([found for _, found in batch]),
                (batch[start:stop] for batch, start, stop in windows(shots, length, 0)),
                self.threads,
            )

    def _annotator(self, frame: Frame, faces: int) -> Annotator:
        height, width = frame.image.shape[:2]
        predictor = self.predictor
        remark = SYNTHETIC_ONLY if warning_of(predictor.model) else ""
        return Annotator(predictor.names, width, height, faces, predictor.threshold, remark)

    def _drawer(
        self, target: Path, video: Video, first: Piece, stack: ExitStack
    ) -> Callable[[Frame, Sequence[FacePrediction]], None]:
        """Return a function that adds a frame with its predictions to the annotated copy."""
        (frame, _), *_ = first[0]
        annotator = self._annotator(frame, max(1, *map(len, first[1])))
        rate = video.fps / self.results.every
        audio = (video.path, video.start or 0.0)
        writer = stack.enter_context(VideoWriter(target, annotator.size, rate, audio))

        def draw(frame: Frame, faces: Sequence[FacePrediction]) -> None:
            writer.write(annotator(frame.image, faces, f"{frame.time:.2f} s"), frame.time)

        return draw
