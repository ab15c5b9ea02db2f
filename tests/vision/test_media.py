"""Photographs and videos of all kinds, turned, mirrored, with odd times, and damaged ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

pytest.importorskip("cv2")
pytest.importorskip("av")

from aurel.vision.av import av
from aurel.vision.inputs import InputError, NotMediaError, Video, is_photo, is_video, read_photo
from aurel.vision.outputs import VideoWriter
from aurel.vision.videos import upright

WriteVideo = Callable[..., Path]
CONTAINERS = {
    "mp4": "libx264",
    "mov": "libx264",
    "3gp": "libx264",
    "mkv": "libx264",
    "ts": "libx264",
    "webm": "libvpx-vp9",
    "avi": "mpeg4",
    "flv": "flv",
    "asf": "wmv2",
    "mpeg": "mpeg1video",
    "gif": "gif",
}


def write_media(path: Path, container: str, frames: int = 20) -> Path:
    codec = CONTAINERS[container]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format={"ts": "mpegts", "mkv": "matroska"}.get(container)) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(frames):
            noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("container", list(CONTAINERS))
def test_a_video_of_any_kind_is_read_whatever_its_suffix(tmp_path: Path, container: str) -> None:
    path = write_media(tmp_path / f"a.{container}", container).rename(tmp_path / "a.jpg")
    assert is_video(path) and not is_photo(path)
    with Video(path) as video:
        frames = list(video)
    assert len(frames) == 20 and video.problem is None
    assert frames[0].image.shape == (48, 64, 3) and frames[0].time == 0
    assert frames[-1].time == pytest.approx(19 / 25, abs=0.01)


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm", "avi", "flv", "asf", "ts", "gif"])
def test_a_video_that_is_cut_says_so_after_what_was_read(tmp_path: Path, container: str) -> None:
    path = write_media(tmp_path / f"a.{container}", container, 60)
    if container == "mp4":  # put the index first
        with VideoWriter(tmp_path / "b.mp4", (64, 48), 25) as writer, Video(path) as source:
            for frame in source:
                writer.write(frame.image, frame.time)
        path = tmp_path / "b.mp4"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with Video(path) as video:
        count = len(list(video))
    assert 3 < count < 60
    assert video.problem is not None and f"frames read: {count}" in video.problem


@pytest.mark.parametrize("container", ["mkv", "webm", "gif", "ts"])
def test_a_video_that_lacks_its_last_bytes_says_so(tmp_path: Path, container: str) -> None:
    path = write_media(tmp_path / f"a.{container}", container)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with Video(path) as video:
        list(video)
    assert video.problem is not None and "frames read:" in video.problem


def test_a_video_whose_times_begin_late_is_complete(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number + 2500, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with Video(tmp_path / "a.mkv") as video:
        times = [frame.time for frame in video]
    assert times == pytest.approx([number / 25 for number in range(20)], abs=0.002)
    assert video.problem is None


def test_an_animated_png_is_a_video(tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (64, 48), (50 * n, 0, 0)) for n in range(4))
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=200)
    assert is_video(tmp_path / "a.png")
    with Video(tmp_path / "a.png") as video:
        frames = list(video)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 50, 100, 150]
    assert video.problem is None


def test_an_animated_png_with_a_color_profile_leaves_the_process_alive(tmp_path: Path) -> None:
    """The name of the profile is freed once, also by the collector of cycles."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    first, second = (Image.new("RGB", (64, 48), (50 * n, 0, 0)) for n in range(2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second], icc_profile=profile)
    script = (
        "import gc, sys\nfrom aurel.vision.inputs import Video\ngc.disable()\n"
        "for _ in range(3):\n    with Video(sys.argv[1]) as video:\n"
        "        assert len(list(video)) == 2\n    gc.collect()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], check=True)


@pytest.mark.parametrize("kind", ["ICO", "PDF"])
def test_icons_and_documents_are_no_videos(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (64, 48), (200, 30, 40)).save(tmp_path / "a", format=kind)
    with pytest.raises(NotMediaError):
        Video(tmp_path / "a")


def test_a_video_with_damaged_bytes_says_so(shared: Path, tmp_path: Path) -> None:
    content = bytearray((shared / "data/real/single_face.mp4").read_bytes())
    content[70_000:73_000] = bytes(3000)
    (tmp_path / "a.mp4").write_bytes(content)
    with Video(tmp_path / "a.mp4") as video:
        count = len(list(video))
    assert count > 60 and "damaged" in (video.problem or "")


def test_undamaged_real_videos_have_no_problem(shared: Path) -> None:
    for name in ("single_face.mp4", "no_face.mp4"):
        with Video(shared / "data/real" / name) as video:
            list(video)
        assert video.problem is None


def test_times_of_a_variable_frame_rate(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.5, 0.6, 2.0]
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 30) as writer:
        for time in times:
            writer.write(np.zeros((48, 64, 3), np.uint8), time)
    with Video(tmp_path / "a.mp4") as video:
        assert [frame.time for frame in video] == pytest.approx(times, abs=1e-4)


class Marked:
    """A decoded frame with a display matrix."""

    def __init__(self, image: np.ndarray, matrix: list[int]) -> None:
        self.image = image
        kind = av.sidedata.sidedata.Type.DISPLAYMATRIX
        self.side_data = {kind: np.array(matrix, dtype=np.int32).tobytes()}

    def to_ndarray(self, format: str) -> np.ndarray:
        return self.image


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_every_turn_and_mirror_of_the_file_is_applied(mirrored: bool, quarters: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    # x' = a x + c y, y' = b x + d y, with y downward; a quarter clockwise takes (1, 0) to (0, 1).
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters)
    (a, c), (b, d) = turn @ np.diag([-1 if mirrored else 1, 1])
    one = 1 << 16
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    expected = np.rot90(image[:, ::-1] if mirrored else image, -quarters)
    np.testing.assert_array_equal(upright(Marked(image, matrix)), expected)


@pytest.mark.parametrize("quarters", range(4))
def test_frames_with_data_that_pyav_does_not_know_are_turned(quarters: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)

    class Unknown:
        rotation = 90 * quarters - 360 * (quarters > 2)

        def to_ndarray(self, format: str) -> np.ndarray:
            return image

        @property
        def side_data(self) -> object:
            raise ValueError("31 is not a valid Type")

    np.testing.assert_array_equal(upright(Unknown()), np.rot90(image, quarters))


def test_a_mirrored_file_is_read_mirrored(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "a.mp4", 3)
    with av.open(str(source)) as a, av.open(str(tmp_path / "b.mp4"), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        stream.set_display_matrix([-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30])
        for packet in a.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)
    with Video(tmp_path / "b.mp4") as video:
        image = next(iter(video)).image
    assert image[:, 40:].mean() > 230 and image[:, :28].mean() < 60


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG2000", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_a_photograph_of_any_kind_is_read_whatever_its_suffix(tmp_path: Path, kind: str) -> None:
    from aurel.data.images import register_heif

    register_heif()
    picture = Image.new("RGB", (64, 48), (200, 30, 40))
    picture.save(tmp_path / "a", format=kind)
    path = (tmp_path / "a").rename(tmp_path / "a.mp4")
    assert is_photo(path) and not is_video(path)
    photo = read_photo(path)
    assert photo.shape == (48, 64, 3)
    assert np.abs(photo.astype(int) - (200, 30, 40)).max() < 12


def test_audio_alone_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44_100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a\.mp4 holds audio only"):
        Video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"some text\n" * 90,
        b"a,b\n1,2\n" * 50,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x00" * 5000,
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".mp4", ".jpg"])
def test_a_file_that_is_neither_is_no_media(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert not is_photo(path)
    with pytest.raises(NotMediaError, match=r"/a\."):
        Video(path)


@pytest.mark.parametrize(("bits", "mode"), [(8, "I"), (12, "I;16"), (12, "I"), (16, "I;16")])
def test_deep_gray_pictures_are_scaled_by_their_range(tmp_path: Path, bits: int, mode: str) -> None:
    gray = np.tile(np.linspace(0, 2**bits - 1, 64), (48, 1))
    deep = gray.astype(np.uint16 if mode == "I;16" else np.int32)
    Image.fromarray(deep).save(tmp_path / "a.tif")
    expected = gray[..., None] * 255 / (2**bits - 1)
    assert np.abs(read_photo(tmp_path / "a.tif") - expected).max() <= 1
