"""`aurel predict` on real and damaged files, with a model that returns the brightness."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("cv2")
pytest.importorskip("rich")

from aurel.cli import checkpoints, predict
from aurel.cli.errors import guarded
from aurel.facs import AUSet
from aurel.models.voting import VotingEnsemble
from aurel.output import AUOutput
from aurel.vision import image_model, predict_files
from aurel.vision.face_detector import Face
from aurel.vision.inputs import Video
from aurel.vision.opencv import cv2
from aurel.vision.outputs import VideoWriter

Call = Callable[..., int]
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)


class Brightness(nn.Module):
    """Returns the brightness of a face: AU01 of red, AU02 of green, AU04 of blue."""

    def __init__(self) -> None:
        super().__init__()
        self.aus = AUSet.of([1, 2, 4])
        self.config = None
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> AUOutput:
        self.batches.append(len(images))
        return AUOutput((images * STD + MEAN).mean((2, 3)).clamp(0, 1), aus=self.aus)


@dataclass
class Setup:
    call: Call
    model: Brightness
    folder: Path

    def rows(self, out: str = "out") -> list[dict[str, str]]:
        """Return the rows of all tables, in the order of the inputs."""
        rows = []
        for outcome in self.manifest(out):
            if outcome["status"] in ("done", "incomplete"):
                with (self.folder / out / f"tables/{outcome['name']}.csv").open(newline="") as file:
                    rows += csv.DictReader(file)
        return rows

    def manifest(self, out: str = "out") -> list[dict[str, str]]:
        with (self.folder / out / "manifest.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def files(self, out: str = "out") -> list[str]:
        """Return all files in a folder of results but the manifest."""
        root = self.folder / out
        found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        return [name for name in found if name != "manifest.csv"]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    model = Brightness()
    loaded = checkpoints.ImageModel(model, image_size=32, resize=32)
    monkeypatch.setattr(image_model, "load_face_model", lambda path: loaded)
    monkeypatch.chdir(tmp_path)
    for name in "cd":
        (tmp_path / f"{name}.ckpt").write_bytes(b"weights")

    def call(*arguments: Any, out: str = "out") -> int:
        parser = argparse.ArgumentParser()
        predict.add_parser(parser.add_subparsers())
        words = ["predict", *map(str, arguments), "--checkpoint", "c.ckpt", "--out", out]
        if "--workers" not in words:
            words += ["--workers", "1"]
        return guarded(lambda: predict.run(parser.parse_args(words)))

    return Setup(call, model, tmp_path)


def photo(path: Path, color: tuple[int, ...], size: tuple[int, int] = (60, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if len(color) == 3 else "RGBA", size, color).save(path)
    return path


def video(path: Path, colors: list[int], fps: float = 10) -> Path:
    with VideoWriter(path, (64, 48), fps) as writer:
        for color in colors:
            writer.write(np.full((48, 64, 3), color, dtype=np.uint8))
    return path


def test_columns_and_values(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    photo(setup.folder / "a.png", (204, 51, 102))
    assert setup.call("a.png", "--cropped") == 0
    assert "1 face in 1 file: out/tables" in capsys.readouterr().out
    (row,) = setup.rows()
    assert list(row) == [
        *("input", "frame", "time", "face", "person"),
        *("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceAngle", "FaceScore"),
        *("RightEyeX", "RightEyeY", "LeftEyeX", "LeftEyeY", "NoseTipX", "NoseTipY"),
        *("MouthRightX", "MouthRightY", "MouthLeftX", "MouthLeftY"),
        *("AU01", "AU02", "AU04", "AU01_present", "AU02_present", "AU04_present"),
    ]
    assert row["input"] == "a.png" and row["frame"] == "0" and row["face"] == "0"
    box = [float(row[name]) for name in list(row)[5:10]]
    assert box == [0, 10, 60, 60, 0]
    assert [float(row[name]) for name in ("AU01", "AU02", "AU04")] == pytest.approx(
        [0.8, 0.2, 0.4], abs=1e-4
    )
    assert [row[f"{name}_present"] for name in ("AU01", "AU02", "AU04")] == ["1", "0", "0"]


def test_the_threshold_decides(setup: Setup) -> None:
    photo(setup.folder / "a.png", (204, 51, 102))
    assert setup.call("a.png", "--cropped", "--threshold", 0.3) == 0
    (row,) = setup.rows()
    assert [row[f"{name}_present"] for name in ("AU01", "AU02", "AU04")] == ["1", "0", "1"]


def test_rows_of_a_video_have_frames_and_times(setup: Setup) -> None:
    video(setup.folder / "a.mp4", [40, 80, 120, 160, 200])
    assert setup.call("a.mp4", "--cropped", "--every", 2, "--batch-size", 2) == 0
    rows = setup.rows()
    assert [row["frame"] for row in rows] == ["0", "2", "4"]
    assert [float(row["time"]) for row in rows] == pytest.approx([0, 0.2, 0.4])
    assert [float(row["AU01"]) * 255 for row in rows] == pytest.approx([40, 120, 200], abs=4)
    assert setup.model.batches == [2, 1]
    with Video(setup.folder / "out/annotated/a.mp4") as annotated:
        assert len(list(annotated)) == 3
        assert annotated.fps == pytest.approx(5)


def test_faces_of_several_photographs_share_a_batch(setup: Setup) -> None:
    for name in "abcde":
        photo(setup.folder / "in" / f"{name}.png", (100, 100, 100))
    assert setup.call("in", "--cropped", "--batch-size", 3) == 0
    assert setup.model.batches == [3, 2]
    assert [Path(row["input"]).name for row in setup.rows()] == [f"{n}.png" for n in "abcde"]


def test_memory_is_bounded_by_pixels_too(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_files, "MAX_PIXELS", 2 * 64 * 48)
    video(setup.folder / "a.mp4", [100] * 5)
    assert setup.call("a.mp4", "--cropped") == 0
    assert setup.model.batches == [2, 2, 1]


def test_a_picture_without_a_face_gets_an_empty_row(setup: Setup) -> None:
    photo(setup.folder / "a.png", (100, 100, 100))
    assert setup.call("a.png") == 0
    (row,) = setup.rows()
    assert (row["input"], row["frame"], row["time"]) == ("a.png", "0", "0.0")
    assert set(list(row.values())[3:]) == {""}
    assert setup.model.batches == []
    assert setup.files() == ["annotated/a.png", "tables/a.csv"]


def test_a_video_in_which_faces_come_and_go(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness_faces(image: np.ndarray) -> list[Face]:
        return [Face(5 * n, 5, 20, 20) for n in range(round(image[0, 0, 0] / 50))]

    for module in ("detectors", "face_detector"):
        monkeypatch.setattr(f"aurel.vision.{module}.whole_image", brightness_faces)
    video(setup.folder / "a.mp4", [50, 0, 250, 100])
    assert setup.call("a.mp4", "--cropped", "--batch-size", 2) == 0
    seen = [(row["frame"], row["face"]) for row in setup.rows()]
    assert seen == [
        *(("0", "0"), ("1", "")),
        *(("2", str(n)) for n in range(5)),
        *(("3", "0"), ("3", "1")),
    ]
    with Video(setup.folder / "out/annotated/a.mp4") as annotated:
        assert len({frame.image.shape for frame in annotated}) == 1


def test_damaged_files_are_named_and_the_others_done(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = setup.folder / "in"
    photo(folder / "good.png", (100, 100, 100))
    whole = photo(folder / "cut.png", (9, 8, 7), size=(300, 300)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    video(folder / "good.mp4", [100, 100])
    whole = video(folder / "cut.mp4", [100] * 9).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[:-20])  # the last frame is cut and not decoded
    video(folder / "none.mp4", [])
    assert setup.call("in", "in/gone.jpg", "--cropped") == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 4
    for name in ("cut.png", "cut.mp4", "none.mp4", "gone.jpg"):
        assert sum(f"in/{name}" in line and line.startswith("aurel: error:") for line in lines) == 1
    rows = [Path(row["input"]).name for row in setup.rows()]
    assert {name: rows.count(name) for name in rows} == {"good.png": 1, "good.mp4": 2, "cut.mp4": 7}
    status = {Path(row["input"]).name: row["status"] for row in setup.manifest()}
    assert status == {
        **dict.fromkeys(("good.png", "good.mp4"), "done"),
        **dict.fromkeys(("cut.png", "none.mp4", "gone.jpg"), "failed"),
        "cut.mp4": "incomplete",
    }
    (cut,) = (row for row in setup.manifest() if row["status"] == "incomplete")
    assert (cut["frames"], cut["faces"]) == ("7", "7")
    names = ("cut.mp4", "good-2.png", "good.mp4")
    assert [name for name in setup.files() if "annotated" in name] == [
        f"annotated/{name}" for name in names
    ]


def test_a_video_that_fails_in_the_middle_leaves_no_rows_and_no_video(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurel.vision.inputs import InputError

    photo(setup.folder / "a.png", (10, 10, 10))
    video(setup.folder / "b.mp4", [100] * 6)
    photo(setup.folder / "c.png", (20, 20, 20))
    whole = Video.__iter__

    def damaged(self: Video) -> Any:
        for frame in whole(self):
            if frame.index == 4:
                raise InputError(f"{self.path} cannot be read: frame 4 is damaged")
            yield frame

    monkeypatch.setattr(Video, "__iter__", damaged)
    assert setup.call("a.png", "b.mp4", "c.png", "--cropped", "--batch-size", 2) == 2
    assert [row["input"] for row in setup.rows()] == ["a.png", "c.png"]
    assert setup.files() == ["annotated/a.png", "annotated/c.png", "tables/a.csv", "tables/c.csv"]


def test_a_face_that_cannot_be_cut_out_costs_its_own_file_alone(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def outside_if_dark(image: np.ndarray) -> list[Face]:
        return [Face(5 if image.mean() > 50 else -500, 5, 20, 20)]

    monkeypatch.setattr("aurel.vision.detectors.whole_image", outside_if_dark)
    for name, level in (("a", 100), ("b", 0), ("c", 100)):
        photo(setup.folder / f"{name}.png", (level, level, level))
    video(setup.folder / "d.mp4", [100, 100, 0, 100])
    assert setup.call("a.png", "b.png", "c.png", "d.mp4", "--cropped", "--batch-size", 2) == 2
    assert [row["input"] for row in setup.rows()] == ["a.png", "c.png"]
    assert setup.files() == ["annotated/a.png", "annotated/c.png", "tables/a.csv", "tables/c.csv"]
    lines = capfd.readouterr().err.strip().splitlines()
    for line, where in zip(lines, ("b.png: frame 0", "d.mp4: frame 2"), strict=True):
        assert line.startswith(f"aurel: error: {where}: face must lie in the ")


def test_a_run_that_is_stopped_leaves_nothing_half_written(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    video(setup.folder / "a.mp4", [100, 100])
    video(setup.folder / "b.mp4", [100] * 6)
    forward = Brightness.forward

    def stop(self: Brightness, images: Tensor) -> AUOutput:
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return forward(self, images)

    monkeypatch.setattr(Brightness, "forward", stop)
    assert setup.call("a.mp4", "b.mp4", "--cropped", "--batch-size", 2) == 130
    assert setup.files() == ["annotated/a.mp4", "tables/a.csv"]
    assert [row["input"] for row in setup.manifest()] == ["a.mp4"]


def test_when_nothing_can_be_read_nothing_is_written(setup: Setup) -> None:
    (setup.folder / "a.jpg").write_bytes(b"junk")
    assert setup.call("a.jpg") == 2
    assert setup.files() == []


def test_outputs_do_not_collide_and_inputs_stay(setup: Setup) -> None:
    for name in ("a/b.jpg", "c/b.png", "c/b.x.png"):
        photo(setup.folder / name, (100, 100, 100))
    before = {p: p.read_bytes() for p in setup.folder.rglob("*.png")}
    assert setup.call("a/b.jpg", "c", "--cropped") == 0
    assert setup.files() == [
        "annotated/a/b.png",
        "annotated/c/b.png",
        "annotated/c/b.x.png",
        *("tables/a/b.csv", "tables/c/b.csv", "tables/c/b.x.csv"),
    ]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_results_of_an_earlier_run_are_no_inputs(setup: Setup) -> None:
    photo(setup.folder / "in" / "a.png", (100, 100, 100))
    for options in ([], ["--overwrite"]):
        assert setup.call("in", "--cropped", *options, out="in") == 0
        assert [row["input"] for row in setup.rows("in")] == ["in/a.png"]


def test_the_manifest_alone_is_left_where_no_input_can_be_read(
    setup: Setup, capfd: pytest.CaptureFixture[str]
) -> None:
    (setup.folder / "b.mp4").write_bytes(b"junk")
    assert setup.call("nosuch.jpg", "b.mp4", "--cropped", out="deep/er/out") == 2
    assert "no results were written" in capfd.readouterr().err
    assert setup.files("deep/er/out") == []
    assert [row["status"] for row in setup.manifest("deep/er/out")] == ["failed", "failed"]


def test_csv_only_draws_nothing(setup: Setup) -> None:
    photo(setup.folder / "a.png", (100, 100, 100))
    video(setup.folder / "b.mp4", [100])
    assert setup.call("a.png", "b.mp4", "--cropped", "--csv-only") == 0
    assert setup.files() == ["tables/a.csv", "tables/b.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--every", "0"], "--every must be at least 1"),
        (["--threshold", "1.5"], "threshold must be in [0, 1]"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--device", "tpu9"], "--device tpu9 cannot be used"),
        (["--cropped", "empty"], "no photographs or videos in"),
    ],
)
def test_bad_options_are_named_in_one_line(
    setup: Setup, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (setup.folder / "empty").mkdir()
    inputs = [] if "empty" in options else [photo(setup.folder / "a.png", (1, 2, 3))]
    assert setup.call(*inputs, *options) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert message in line
    assert not (setup.folder / "out").exists()


def test_several_checkpoints_vote(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[Path], float]] = []

    def load(paths: list[Path], threshold: float) -> checkpoints.ImageModel:
        seen.append((paths, threshold))
        return checkpoints.ImageModel(VotingEnsemble([setup.model] * 2, threshold), 32, 32)

    monkeypatch.setattr(checkpoints, "load_voters", load)
    photo(setup.folder / "a.png", (204, 51, 102))
    assert setup.call("a.png", "--cropped", "--threshold", "0.3", "--checkpoint", "d.ckpt") == 0
    assert seen == [([Path("d.ckpt"), Path("c.ckpt")], 0.3)]
    assert setup.call("a.png", "--cropped", "--threshold", "0.3", out="one") == 0
    (voted,), (alone,) = setup.rows(), setup.rows("one")
    names = [name for name in alone if name.endswith("_present")]
    assert {alone[name] for name in names} == {"0", "1"}
    for name in names:
        assert voted[name] == alone[name]
        assert float(voted[name.removesuffix("_present")]) == float(alone[name])  # both or neither


def test_a_missing_checkpoint_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    predict.add_parser(parser.add_subparsers())
    words = ["predict", "a.png", "--checkpoint", str(tmp_path / "gone.ckpt"), "--out", "out"]
    assert guarded(lambda: predict.run(parser.parse_args(words))) == 2
    assert "gone.ckpt" in capfd.readouterr().err


def test_help_explains_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    predict.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["predict", "--help"])
    text = capsys.readouterr().out
    for column in ("input", "frame", "time", "face", "FaceRectX", "FaceAngle", "AU01_present"):
        assert column in text


@pytest.mark.slow
def test_real_files(setup: Setup, shared: Path) -> None:
    real = shared / "data" / "real"
    gray = cv2.cvtColor(cv2.imread(str(real / "single_face.jpg")), cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(setup.folder / "gray.png"), gray.astype(np.uint16) * 257)
    photos = [real / "single_face.jpg", real / "multi_face.jpg", real / "Image_with_alpha.png"]
    names = ("single_face.mp4", "no_face.mp4", "WolfgangLanger_Pexels.mp4")
    videos = [real / name for name in names]
    assert setup.call(*photos, setup.folder / "gray.png", *videos, "--every", 24) == 0
    faces: dict[str, list[str]] = {}
    for row in setup.rows():
        faces.setdefault(Path(row["input"]).name, []).append(row["face"])
    assert faces == {
        "single_face.jpg": ["0"],
        "multi_face.jpg": ["0", "1", "2", "3", "4"],
        "Image_with_alpha.png": ["0"],
        "gray.png": ["0"],
        "single_face.mp4": ["0"] * 3,
        "no_face.mp4": [""] * 4,
        "WolfgangLanger_Pexels.mp4": ["0"] * 20,
    }
    assert len(setup.files()) == 2 * 7
