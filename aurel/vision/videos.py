"""Read videos frame by frame, upright, with their times, and detect those that are damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from aurel.vision.av import av
from aurel.vision.cut_files import cut_reason
from aurel.vision.file_names import shown
from aurel.vision.frame import Frame, InputError, NotMediaError, check_file
from aurel.vision.image import RGBImage

USUAL_FPS = 25.0
_MISSING = 0.02
"""Share of the duration that may be missing at the end: headers are rounded."""
_MISSING_SECONDS = 0.5

# Demuxers that take text, lists of other files, or single pictures for videos; that of JPEG finds
# the pictures in a PDF.
_NOT_VIDEOS = frozenset({"tty", "concat", "hls", "dash", "sdp", "image2", "rawvideo", "mpjpeg"}) | {
    "ico",
    "mjpeg",
}
_PNG = b"\x89PNG\r\n\x1a\n"
_OPTIONS = {"protocol_whitelist": "file"}


class Video:
    """A video that is read frame by frame: a context manager, and an iterable of `Frame`.

    The rotation and the mirroring in the file are applied. One frame is in memory at a time. The
    decoder runs in one thread, so that the frames of a damaged file are the same every time.

    Args:
        path: the file; its content decides how it is read.
        every: read one frame in `every`, from the first one on.

    Attributes:
        fps: mean number of frames a second by the header, 25 if it has none.
        frame_count: number of frames by the header; the actual number may differ by a few.
        pixels: number of pixels of a frame by the header.
        start: time of the first frame in the file, in seconds; None before it is read.
        problem: after iterating, the reason why frames are missing or damaged, or None.

    Raises:
        NotMediaError: the file is not a video.
        InputError: it does not exist, has no pictures, or they are larger than Pillow's limit for
            photographs; while iterating also if no frame can be read.
    """

    def __init__(self, path: Path | str, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.path = Path(path)
        self.every = every
        check_file(self.path)
        self._container = open_media(self.path)
        try:
            self._stream = picture_stream(self._container, self.path)
        except InputError:
            self._container.close()
            raise
        self._stream.thread_count = 1
        # PyAV 18 frees the name of the ICC profile in a PNG twice if side data are read.
        self._side_data = self._stream.codec_context.name not in ("png", "apng")
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate < 1000 else USUAL_FPS
        self.frame_count: int = self._stream.frames or self._frames_by_duration()
        self.pixels: int = max(1, self._stream.width * self._stream.height)
        self.start: float | None = None
        self.problem: str | None = None
        self._seen: Counter[int] = Counter()
        self._end = 0.0
        self._damaged = 0
        self._stopped = ""

    def _frames_by_duration(self) -> int:
        duration = self._container.duration or 0
        return max(0, round(duration / av.time_base * self.fps))

    def __iter__(self) -> Iterator[Frame]:
        index, time = 0, 0.0
        for frame in self._frames():
            stamp = frame.time
            if self.start is None:
                self.start = stamp or 0.0
            elif stamp is None or stamp - self.start <= time:
                time += 1 / self.fps
            else:
                time = stamp - self.start
            if index % self.every == 0:
                yield Frame(index, time, upright(frame, self._side_data))
            index += 1
        if index == 0:
            raise InputError(f"{shown(self.path)} has no frames that can be read")
        self.problem = self._judge(index)

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._stopped = one_reason(error)
                return
            if packet is None:
                return
            if packet.size:
                self._seen[packet.stream_index] += 1
                self._damaged += packet.is_corrupt
                if packet.pts is not None and packet.time_base:
                    last = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._end = max(self._end, float(last))
            if packet.stream_index != self._stream.index:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self._damaged += 1
                continue
            for frame in decoded:
                self._damaged += frame.is_corrupt
                yield frame

    def _judge(self, frames: int) -> str | None:
        """Return the reason why the file is incomplete, or None."""
        if self._stopped:
            return f"reading ended: {self._stopped}; frames read: {frames}"
        if self._damaged:
            return f"packets or frames that are damaged: {self._damaged}; frames read: {frames}"
        # Files that count the packets of each stream.
        for stream in self._container.streams:
            if stream.type in ("video", "audio") and self._seen[stream.index] < stream.frames:
                return (
                    f"it ends after {self._seen[stream.index]} of {stream.frames} packets of "
                    f"{stream.type}; frames read: {frames}"
                )
        formats = _formats(self._container)
        if reason := cut_reason(self.path, formats):
            return f"{reason}; frames read: {frames}"
        # Of the others, the end that the header announces must be reached. Matroska announces the
        # last time, others the duration from the first time on.
        announced = (self._container.duration or 0) / av.time_base
        first = 0 if "matroska" in formats else self._container.start_time or 0
        found = self._end - first / av.time_base
        if announced - found > max(_MISSING_SECONDS, _MISSING * announced):
            return f"it ends at {found:.1f} of {announced:.1f} s; frames read: {frames}"
        return None

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()


def open_media(path: Path) -> Any:
    """Return the PyAV container of a local file, whose name has no influence on how it is read.

    Files that refer to other files or addresses, such as playlists, are refused.

    Raises:
        NotMediaError: the file is no video and no audio.
    """
    try:
        file = path.open("rb")
        # FFmpeg takes an animated PNG for a picture otherwise.
        kind = "apng" if file.peek(len(_PNG)).startswith(_PNG) else None
        container = av.open(_Nameless(file), format=kind, options=_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise NotMediaError(
            f"{shown(path)} is not a photograph or a video that can be read: {one_reason(error)}"
        ) from error
    names = _formats(container)
    if names & _NOT_VIDEOS or any(name.endswith("_pipe") for name in names):
        container.close()
        raise NotMediaError(f"{shown(path)} is not a photograph or a video that can be read")
    return container


def _formats(container: Any) -> set[str]:
    return set(container.format.name.split(","))


class _Nameless:
    """An open file without its name, by whose suffix FFmpeg would choose a demuxer.

    It is closed with the container, which has the only reference.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
        self._close = file.close

    def __del__(self) -> None:
        self._close()


def picture_stream(container: Any, path: Path) -> Any:
    """Return the first stream of pictures that is not the cover of a piece of music.

    Raises:
        NotMediaError: there is neither video nor audio.
        InputError: there is audio only, or the pictures are too large.
    """
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams or streams[0].codec_context is None:
        if container.streams.audio:
            raise InputError(f"{shown(path)} holds audio only, no pictures")
        raise NotMediaError(f"{shown(path)} holds no pictures that can be read")
    stream = streams[0]
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if most and stream.width * stream.height > most:
        raise InputError(f"{shown(path)} has frames of more than {most} pixels")
    return stream


def upright(frame: Any, side_data: bool = True) -> RGBImage:
    """Return a decoded frame as (H, W, 3) uint8 RGB, turned and mirrored as the file asks for.

    Without `side_data`, or where PyAV does not know one of them, such as EXIF, it is turned only.

    The display matrix of the file (ISO/IEC 14496-12, 8.3.2) maps (x, y) to (a x + c y, b x + d y);
    it is rounded to the nearest of the eight symmetries of a rectangle.
    """
    image = frame.to_ndarray(format="rgb24")
    data = None
    try:
        if side_data:
            data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    except ValueError:
        side_data = False
    if not side_data:
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    if data is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        image, across, down = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def rate_of(fps: float) -> Fraction:
    """Return a frame rate as a fraction that every encoder takes."""
    return Fraction(min(max(fps, 0.1), 240.0)).limit_denominator(1001)


def one_reason(error: Exception) -> str:
    """Return the reason in an error of PyAV, without file names and codes."""
    return getattr(error, "strerror", None) or str(error).split("\n")[0]
