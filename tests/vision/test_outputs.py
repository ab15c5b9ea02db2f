"""Annotated pictures and videos: complete or absent, playable, with the right times and sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("av")

from aurel.vision.av import av
from aurel.vision.inputs import Video
from aurel.vision.outputs import VideoWriter, write_picture

FRAME = np.full((48, 64, 3), 90, dtype=np.uint8)


def test_a_video_is_complete_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mp4"
    with pytest.raises(RuntimeError, match="killed"), VideoWriter(path, (64, 48), 20) as writer:
        writer.write(FRAME)
        assert not path.exists()
        raise RuntimeError("killed")
    assert not path.parent.exists()
    with VideoWriter(path, (64, 48), 20) as writer:
        writer.write(FRAME)
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    with Video(path) as video:
        assert abs(int(next(iter(video)).image.mean()) - 90) < 4


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_picture(FRAME, path)
    before = path.read_bytes()

    def fail(self: object, file: Path, **options: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_picture(FRAME, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_video_takes_pictures_of_its_size_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "a.mp4", (63, 48), 20)
    with (
        pytest.raises(ValueError, match="image must be"),
        VideoWriter(tmp_path / "a.mp4", (64, 50), 20) as writer,
    ):
        writer.write(FRAME)


def boxes(path: Path) -> list[str]:
    """Return the names of the outer boxes of an MP4 file."""
    content, names, position = path.read_bytes(), [], 0
    while position + 8 <= len(content):
        names.append(content[position + 4 : position + 8].decode())
        position += int.from_bytes(content[position : position + 4], "big")
    return names


def test_a_video_is_one_that_browsers_play(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 20) as writer:
        for _ in range(5):
            writer.write(FRAME)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
    names = boxes(tmp_path / "a.mp4")
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize("fps", [1e-3, 7.3, 29.97, 1000 / 3, 900.0])
def test_any_frame_rate_can_be_written(tmp_path: Path, fps: float) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), fps) as writer:
        for _ in range(3):
            writer.write(FRAME)
    with Video(tmp_path / "a.mp4") as video:
        times = [frame.time for frame in video]
    assert times == pytest.approx([0, 1 / fps, 2 / fps], rel=1e-3, abs=1e-4)


def test_times_of_a_variable_frame_rate_are_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.12, 0.5, 0.5001, 3.0]
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as writer:
        for time in times:
            writer.write(FRAME, time)
    with Video(tmp_path / "a.mp4") as video:
        assert [frame.time for frame in video] == pytest.approx(times, abs=1e-4)


def with_tone(path: Path, codec: str) -> Path:
    """Write two seconds of pictures that start at 1 s, and a tone that starts at 0 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=48_000)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(FRAME, format="rgb24")
            frame.pts, frame.time_base = number + 10, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(3 * 48_000) * 440 * 2 * np.pi / 48_000).astype(np.float32)
        fifo = av.AudioFifo()
        samples = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 48_000, 0
        resampled = av.AudioResampler(sound.format.name, sound.layout.name, 48_000)
        for part in resampled.resample(samples):
            fifo.write(part)
        size = sound.codec_context.frame_size or 1024
        while (piece := fifo.read(size)) is not None:
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(("codec", "name"), [("aac", "a.mp4"), ("libopus", "a.mkv")])
def test_sound_is_kept_in_step_with_the_pictures(tmp_path: Path, codec: str, name: str) -> None:
    source = with_tone(tmp_path / name, codec)
    with (
        Video(source) as video,
        VideoWriter(tmp_path / "out.mp4", (64, 48), 10, (source, 1.0)) as writer,
    ):
        for frame in video:
            writer.write(frame.image, frame.time)
    assert video.start == pytest.approx(1.0, abs=0.01)
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        frames = list(container.decode(sound))
    assert frames[0].time == pytest.approx(0, abs=0.05)
    assert sum(frame.samples for frame in frames) / sound.rate == pytest.approx(2.0, abs=0.1)
