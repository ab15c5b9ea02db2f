"""Write annotated pictures and videos; an incomplete file is never left at its path."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from PIL import Image

from aurel.files import atomic_path
from aurel.vision.audio import AudioCopy
from aurel.vision.av import av
from aurel.vision.file_names import shown
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.videos import one_reason, rate_of

TICK = Fraction(1, 90_000)
"""Unit of the times in a video, that of MPEG; all usual frame rates are multiples of it."""

_CODEC = "libx264"
_QUALITY = {"preset": "veryfast", "crf": "21"}


def write_picture(image: RGBImage, path: Path) -> None:
    """Write an (H, W, 3) uint8 RGB picture in the format of the suffix."""
    check_rgb(image)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


class VideoWriter:
    """Writes RGB pictures to an MP4 file with H.264 video, which browsers play: a context manager.

    The index is at the start of the file. The file is moved to `path` at the end of the block;
    after an error it is removed.

    Args:
        path: ends in .mp4.
        size: (width, height) of the pictures, even numbers.
        fps: usual number of pictures a second; the times of pictures need not follow it.
        audio: a file whose sound is kept, with the time in it of the first picture, in seconds.

    Raises:
        ValueError: an odd size.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float,
        audio: tuple[Path, float] | None = None,
    ) -> None:
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"size must be even in width and height, got {size}")
        self.path = path
        self.size = size
        self.fps = fps
        self._audio_source = audio
        self._audio: AudioCopy | None = None
        self._last = -1
        self._stack = ExitStack()

    def write(self, image: RGBImage, time: float | None = None) -> None:
        """Append an (H, W, 3) uint8 RGB picture of the writer's size.

        Args:
            image: the picture.
            time: seconds from the first picture; None for 1 / fps after the picture before.
        """
        check_rgb(image)
        if image.shape[1::-1] != self.size:
            raise ValueError(f"image must be {self.size} (width, height), got {image.shape[1::-1]}")
        if time is None:
            time = 0.0 if self._last < 0 else float(self._last * TICK) + 1 / self.fps
        self._last = max(round(time / TICK), self._last + 1)
        if self._audio is not None:
            self._audio.copy_until(time)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._last, TICK
        self._encode(frame)

    def _encode(self, frame: object) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except av.FFmpegError as error:
            raise OSError(f"{shown(self.path)} cannot be written: {one_reason(error)}") from error

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            temporary.touch()  # the writer creates it with the first picture
            try:
                self._container = av.open(str(temporary), "w", options={"movflags": "+faststart"})
                stack.callback(self._container.close)
                self._stream = self._container.add_stream(_CODEC, rate=rate_of(self.fps))
            except (av.FFmpegError, ValueError) as error:
                raise OSError(f"{shown(self.path)} cannot be written: {error}") from error
            self._stream.width, self._stream.height = self.size
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = self._stream.codec_context.time_base = TICK
            self._stream.codec_context.options = _QUALITY
            if self._audio_source is not None:
                self._audio = stack.enter_context(AudioCopy(*self._audio_source, self._container))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if self._last < 0:
            return
        self._encode(None)
        if self._audio is not None:
            self._audio.copy_until(float(self._last * TICK) + 1 / self.fps)
            self._audio.finish()
