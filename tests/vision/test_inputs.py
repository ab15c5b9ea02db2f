"""Read photographs and videos of every kind, and files that are neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from aurel.vision.inputs import InputError, Video, find_inputs, read_photo

WriteVideo = Callable[..., Path]
RED = (200, 30, 40)


def left_red() -> Image.Image:
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste(RED, (0, 0, 20, 20))
    return picture


def test_channels_come_as_red_green_blue(tmp_path: Path) -> None:
    left_red().save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.shape == (20, 40, 3) and photo.dtype == np.uint8
    assert tuple(photo[5, 5]) == RED


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "I"])
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path: Path, mode: str) -> None:
    gray = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (20, 1))
    if mode.startswith("I"):
        wide = Image.fromarray(gray.astype(np.uint16) * 257)
        picture = wide if mode == "I;16" else wide.convert("I")
    else:
        picture = Image.fromarray(gray).convert("RGBA" if mode == "RGBA" else mode)
    path = tmp_path / {"CMYK": "a.jpg", "I": "a.tif"}.get(mode, "a.png")
    picture.save(path, **({"quality": 95} if mode == "CMYK" else {}))
    photo = read_photo(path)
    assert photo.shape == (20, 40, 3) and photo.dtype == np.uint8
    if mode == "1":
        assert set(np.unique(photo)) <= {0, 255}
    else:
        assert np.abs(photo.astype(int) - gray[..., None]).max() <= 6


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    left_red().save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    assert photo.shape == (40, 20, 3)
    assert tuple(photo[5, 5]) == RED and tuple(photo[35, 5]) == (255, 255, 255)


def test_a_damaged_photograph_is_named_in_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    (tmp_path / "empty.jpg").touch()
    for name in ("cut.jpg", "junk.png", "empty.jpg", "missing.jpg"):
        with pytest.raises(InputError) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_beyond_the_limit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_red().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"a\.png"):
        read_photo(tmp_path / "a.png")


def test_folders_are_searched_and_files_listed_once(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "b/1.png",
        "b/c/3.mp4",
        "b/.hidden/4.png",
        "b/notes.txt",
        "b/out/5.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "odd.xyz"
    odd.touch()
    found = find_inputs([odd, tmp_path / "b", tmp_path / "b" / "1.png"], skip=tmp_path / "b/out")
    assert [path.name for path in found] == ["odd.xyz", "1.png", "2.JPG", "3.mp4"]
    assert find_inputs([tmp_path / "gone.jpg"]) == [tmp_path / "gone.jpg"]


def test_a_video_comes_frame_by_frame_with_its_times(
    tmp_path: Path, write_video: WriteVideo
) -> None:
    path = write_video(tmp_path / "a.b.mp4", 10, fps=20)
    with Video(path) as video:
        assert video.fps == pytest.approx(20) and video.frame_count == 10
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == pytest.approx([n / 20 for n in range(10)])
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[9].image[24, 60].mean() == pytest.approx(72, abs=6)


def test_every_nth_frame(tmp_path: Path, write_video: WriteVideo) -> None:
    path = write_video(tmp_path / "a.mp4", 10, fps=20)
    with Video(path, every=4) as video:
        assert [(f.index, round(f.time, 3)) for f in video] == [(0, 0.0), (4, 0.2), (8, 0.4)]
    with pytest.raises(ValueError, match="every must be at least 1"):
        Video(path, every=0)


def test_a_portrait_video_is_turned_upright(
    tmp_path: Path, write_video: WriteVideo, turn_a_quarter: WriteVideo
) -> None:
    path = turn_a_quarter(write_video(tmp_path / "a.mp4", 3))
    with Video(path) as video:
        image = next(iter(video)).image
    assert image.shape == (64, 48, 3)
    assert image[:28].mean() > 230 and image[36:].mean() < 60


@pytest.mark.parametrize("name", ["none.mp4", "junk.mp4", "empty.avi", "missing.mov"])
def test_a_file_without_frames_is_named_in_one_line(
    tmp_path: Path, write_video: WriteVideo, name: str
) -> None:
    write_video(tmp_path / "none.mp4", 0)
    (tmp_path / "junk.mp4").write_bytes(b"not a video" * 50)
    (tmp_path / "empty.avi").touch()
    with pytest.raises(InputError) as caught, Video(tmp_path / name) as video:
        list(video)
    assert name in str(caught.value) and "\n" not in str(caught.value)
