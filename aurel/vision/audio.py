"""Copy the sound of a video into another one, in step with its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from aurel.vision.av import av
from aurel.vision.videos import open_media

_COPIED = ("aac", "mp3")
"""Codecs that browsers play in MP4; others are encoded as AAC."""
RATE = 48_000
"""Samples a second of the encoded sound."""


class AudioCopy:
    """The first sound of a file on its way into a container: a context manager.

    A file without sound, or whose sound cannot be decoded, adds nothing.

    Args:
        source: file with the sound.
        start: the time in it that becomes 0, in seconds; sound before it is left out.
        target: PyAV container that is open for writing and has no packets.
    """

    def __init__(self, source: Path, start: float, target: Any) -> None:
        self._target = target
        self._start = start
        self._pending: Iterator[tuple[float, list[Any]]] = iter(())
        self._next: tuple[float, list[Any]] | None = None
        self._encoder: Any = None
        self._container = open_media(source)
        sounds = self._container.streams.audio
        if not sounds or sounds[0].codec_context is None or not sounds[0].rate:
            return
        if sounds[0].codec_context.name.startswith(_COPIED):
            copy = target.add_stream_from_template(sounds[0])
            self._pending = self._copied(sounds[0], copy)
        else:
            self._encoder = target.add_stream("aac", rate=RATE, layout="stereo")
            self._pending = self._encoded(sounds[0])

    def copy_until(self, time: float) -> None:
        """Write the sound up to a time, in seconds from the start."""
        while True:
            if self._next is None:
                self._next = next(self._pending, None)
            if self._next is None or self._next[0] >= time:
                return
            for packet in self._next[1]:
                self._target.mux(packet)
            self._next = None

    def finish(self) -> None:
        """Write the sound that the encoder holds back."""
        if self._encoder is not None:
            for packet in self._encoder.encode(None):
                self._target.mux(packet)

    def _copied(self, sound: Any, copy: Any) -> Iterator[tuple[float, list[Any]]]:
        shift = round(self._start / sound.time_base)
        try:
            for packet in self._container.demux(sound):
                if packet.dts is None or packet.pts is None or packet.pts < shift:
                    continue
                packet.pts -= shift
                packet.dts -= shift
                time = float(packet.pts * sound.time_base)
                packet.stream = copy
                yield time, [packet]
        except av.FFmpegError:
            return

    def _encoded(self, sound: Any) -> Iterator[tuple[float, list[Any]]]:
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
        packets = self._container.demux(sound)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except av.FFmpegError:
                continue
            if packet is None:
                return
            for frame in frames:
                if frame.time is None or frame.time < self._start:
                    continue
                frame.pts -= round(self._start / frame.time_base)
                time = frame.time
                for part in resampler.resample(frame):
                    yield time, self._encoder.encode(part)

    def __enter__(self) -> AudioCopy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()
