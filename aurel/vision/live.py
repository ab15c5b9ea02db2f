"""Predict a camera or a stream as it comes: the newest frame each time, rows as they are known."""

from __future__ import annotations

import csv
import threading
import time as clock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aurel.vision.av import av
from aurel.vision.face_predictor import FacePrediction, FacePredictor
from aurel.vision.follow import FollowingPredictor
from aurel.vision.frame import Frame, InputError
from aurel.vision.opencv import cv2
from aurel.vision.prediction_table import columns, row_of
from aurel.vision.tracks import FaceTracker
from aurel.vision.videos import one_reason, upright

SCHEMES = ("rtsp://", "rtmp://", "http://", "https://", "udp://", "srt://", "tcp://")


def is_live(source: str) -> bool:
    """Return whether an input is the number of a camera or the address of a stream."""
    return source.isdecimal() or source.lower().startswith(SCHEMES)


def newest(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the newest frame each time: frames that come while the last one is used are left out.

    The first and the last frame are yielded in any case.
    """
    latest: list[Frame] = []
    changed = threading.Condition()
    errors: list[Exception] = []
    ended = threading.Event()

    def read() -> None:
        try:
            for frame in frames:
                with changed:
                    latest[:] = [frame]
                    changed.notify()
        except Exception as error:
            errors.append(error)
        with changed:
            ended.set()
            changed.notify()

    threading.Thread(target=read, daemon=True).start()
    while True:
        with changed:
            changed.wait_for(lambda: latest or ended.is_set())
            if not latest:
                break
            frame = latest.pop()
        yield frame
    if errors:
        raise errors[0]


def live_frames(source: str) -> Iterator[Frame]:
    """Yield the frames of a camera (its number) or a stream (its address), as they come.

    Raises:
        InputError: the camera or the stream cannot be opened, or the stream breaks off.
    """
    return _camera(int(source)) if source.isdecimal() else _stream(source)


def _camera(number: int) -> Iterator[Frame]:
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise InputError(f"camera {number} cannot be opened")
        start, index = clock.monotonic(), 0
        while True:
            ok, picture = capture.read()
            if not ok:
                return
            image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            yield Frame(index, clock.monotonic() - start, image)
            index += 1
    finally:
        capture.release()


def _stream(address: str) -> Iterator[Frame]:
    try:
        with av.open(address, timeout=20) as container:
            if not container.streams.video:
                raise InputError(f"{address} has no pictures")
            start = None
            for index, frame in enumerate(container.decode(video=0)):
                stamp = frame.time if frame.time is not None else clock.monotonic()
                start = stamp if start is None else start
                yield Frame(index, stamp - start, upright(frame))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{address} cannot be read: {one_reason(error)}") from error


def predict_live(
    predictor: FacePredictor, source: str, path: Path
) -> Iterator[tuple[Frame, list[FacePrediction], list[int]]]:
    """Yield each frame with its faces and the numbers of their people, and append their rows.

    Args:
        predictor: of a model of single images, or of clips, which then have one frame.
        source: see `live_frames`.
        path: CSV file, to which rows are appended. Each is in the file before its frame is yielded.

    Raises:
        InputError: see `live_frames`.
        ValueError: the file has other columns.
    """
    following, tracker = FollowingPredictor(predictor), FaceTracker()
    names = columns(predictor.names)
    frames = newest(live_frames(source))
    first = next(frames, None)
    if first is None:
        raise InputError(f"{source} has no frames that can be read")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        header = file.readline().strip()
        writer: Any = csv.writer(file)
        if not header:
            writer.writerow(names)
        elif header != ",".join(names):
            raise ValueError(f"{path}: columns must be those of the model's AUs, got {header[:80]}")
        frame: Frame | None = first
        while frame is not None:
            (faces,) = predictor.predict([following.find(frame)])
            people = tracker.update([prediction.face for prediction in faces], frame.time)
            for number, (face, person) in enumerate(zip(faces, people, strict=True)):
                writer.writerow(row_of(source, frame, number, person, face))
            file.flush()
            yield frame, faces, people
            frame = next(frames, None)
