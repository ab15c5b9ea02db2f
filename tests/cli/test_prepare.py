"""`aurel prepare`: training on its folder and shards, runs that are killed, processes, options."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_model
from helpers.owner_trees import bp4d, disfa, emotionet, write
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("rich")
pytest.importorskip("lightning")

from aurel.cli.main import main
from aurel.facs import AU_SETS
from aurel.models import registry
from aurel.training.checksum import split_checksum
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions
from aurel.vision.face_mesh import face_mesh_file
from aurel.vision.outputs import VideoWriter

PEOPLE = ["F001", "M007", "F003", "F007", "F015"]  # parts 1, 1, 2, 3, 3 of BP4D
RECIPE = """
model: {name: tiny}
data: {batch_size: 4, num_workers: 0, resize: 16, crop: 16, validation: 0.3}
trainer: {max_epochs: 1, accelerator: cpu, devices: 1}
"""
FORK = "fork" in multiprocessing.get_all_start_methods()


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    # Without the mesh, which takes half a second to load.
    monkeypatch.setattr("aurel.vision.face_mesh.face_mesh_file", lambda: None)
    tiny_model.register()
    yield
    del registry._models["tiny"]


def prepare(*words: Any, out: str = "out") -> int:
    fixed = ["--detector", "whole", "--size", 20, "--out", out, "--workers", 1]
    return main(["prepare", *map(str, [*fixed, *words])])


def tree(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def video(path: Path, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, (64, 48), 10) as writer:
        for _ in range(frames):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "make", "people"),
    [("BP4D", bp4d, PEOPLE), ("DISFA", disfa, ["SN001", "SN002", "SN013", "SN018", "SN003"])],
)
def test_a_run_on_prepared_faces_has_the_split_of_the_owners_files(
    name: str, make: Callable[..., Path], people: list[str], tmp_path: Path
) -> None:
    root = make(tmp_path / "owner", people)
    assert prepare("--data", name, "--root", root, "--shards", 2) == 0
    recipe = write(tmp_path / "recipe.yaml", RECIPE)
    for fold in (1, 2, 3):
        splits = [
            training_splits(DataOptions(name, str(folder), fold, class_weights="labels"))
            for folder in (root, "out", "out/shards")
        ]
        assert len({split_checksum(split) for split in splits}) == 1
        weights = [split.class_weights for split in splits]
        assert all((weight == weights[0]).all() for weight in weights)
    for folder in ("out", "out/shards"):
        run = ["--config", str(recipe), "--data.dataset", name, "--data.root", folder]
        assert main(["fit", *run, "--out", f"{folder}/run"]) == 0


def test_single_pictures_are_people_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "owner"
    emotionet(root, 12, AU_SETS["EmotioNet"].numbers)
    assert prepare("--data", "EmotioNet", "--root", root) == 0
    for fold in (1, 3):
        owner, lists = (
            training_splits(DataOptions("EmotioNet", str(folder), fold)) for folder in (root, "out")
        )
        assert split_checksum(owner) == split_checksum(lists)


def die_at(step: int, argv: list[str]) -> None:
    """Kill this process before it renames or opens a file for the `step`-th time."""
    count = 0
    rename, sync = os.replace, os.fsync

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return call

    os.replace, os.fsync = counted(rename), counted(sync)  # type: ignore[assignment]
    os._exit(main(argv))


@pytest.mark.skipif(not FORK, reason="needs fork")
def test_a_run_that_is_killed_at_any_write_goes_on_without_loss(tmp_path: Path) -> None:
    bp4d(tmp_path / "owner", PEOPLE[:3])
    words = ["--data", "BP4D", "--root", "owner", "--shards", "2"]
    assert prepare(*words, out="whole") == 0
    expected = tree("whole")
    fixed = ["prepare", "--detector", "whole", "--size", "20", "--out", "out", "--workers", "1"]
    context = multiprocessing.get_context("fork")
    kills, step = 0, 1
    while True:
        child = context.Process(target=die_at, args=(step, [*fixed, *words]))
        child.start()
        child.join()
        if child.exitcode != -signal.SIGKILL:
            break
        kills += 1
        # No file is half-written: those with their names are as in the whole run.
        for name, content in tree("out").items():
            if name.startswith(("img/", "records/", "list/", "shards/")) and "/." not in name:
                assert content == expected[name], name
        step += 3  # a chip is two writes: both are hit
    assert child.exitcode == 0 and kills > 8
    assert prepare(*words) == 0
    assert tree("out") == expected


@pytest.mark.slow
def test_processes_that_are_killed_at_random_moments(tmp_path: Path) -> None:
    for number in range(5):
        video(tmp_path / f"in/v{number}.mp4", 30, number)
    Image.new("RGB", (50, 40), (90, 10, 30)).save("in/p.png")
    words = ["in", "--shard-size", "40", "--every", "2"]
    assert prepare(*words, out="whole") == 0
    fixed = ["--detector", "whole", "--size", "20", "--out", "out", "--workers", "2"]
    hide = "import aurel.vision.face_mesh as m; m.face_mesh_file = lambda: None; "
    start = "from aurel.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", hide + start, "prepare", *words, *fixed]
    run = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while run.poll() is None and not any(Path("out").glob("img/*/0/*.jpg")):
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert prepare(*words) == 0
    assert tree("out") == tree("whole")
    assert len(list(Path("out/img").rglob("*.jpg"))) == 5 * 15 + 1


def test_nothing_is_done_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video(tmp_path / "in/a.mp4", 3, 0)
    assert prepare("in") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out/img").rglob("*.jpg")}
    video(tmp_path / "in/b.mp4", 2, 1)
    assert prepare("in") == 0
    assert "skipped 1 input that an earlier run has done" in capfd.readouterr().err
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert len(Path("out/list/faces_train_img_path.txt").read_text().split()) == 5


def test_damaged_files_are_named_and_the_others_prepared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video(tmp_path / "in/good.mp4", 3, 0)
    write(tmp_path / "in/bad.png", "no picture")
    write(tmp_path / "in/notes.txt", "text")
    assert prepare("in") == 2
    with open("out/manifest.csv", newline="") as file:
        status = {row["input"]: row["status"] for row in csv.DictReader(file)}
    assert status == {"in/bad.png": "failed", "in/good.mp4": "done", "in/notes.txt": "skipped"}
    lines = capfd.readouterr().err
    assert "in/bad.png is not a photograph" in lines and "skipped 1 other file" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "o"], "one of INPUT and --data NAME must be given"),
        (["in", "--data", "BP4D", "--out", "o"], "one of INPUT and --data NAME must be given"),
        (["--data", "BP4D", "--out", "o"], "--root must be the folder of BP4D, got none"),
        (["--data", "synthetic", "--root", ".", "--out", "o"], "--data must be one of BP4D, BP4D+"),
        (["--data", "BP4D", "--root", ".", "--out", "o"], "holds no annotation of BP4D"),
        (["in", "--alignment", "x", "--out", "o"], "alignment must be one of crop, jaanet"),
        (["in", "--size", "0", "--out", "o"], "--size must be at least 1, got 0"),
        (["in", "--present", "1", "--out", "o"], "--present must be given with --data only, got 1"),
        (
            ["in", "--out", "other"],
            "other must be new, or a folder of aurel prepare",
        ),
        (["nothing.png", "--out", "o"], "nothing.png does not exist"),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 30)).save("in/a.png")
    (tmp_path / "other/img").mkdir(parents=True)
    assert main(["prepare", *words, "--workers", "1", "--detector", "whole"]) == 2
    (line, *_) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert message in line


def test_other_settings_need_overwrite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video(tmp_path / "in/a.mp4", 2, 0)
    assert prepare("in") == 0
    assert prepare("in", "--format", "png") == 2
    assert "--overwrite replaces them" in capfd.readouterr().err
    assert prepare("in", "--format", "png", "--overwrite") == 0
    assert {path.suffix for path in Path("out/img").rglob("*") if path.is_file()} == {".png"}


def test_a_photograph_of_a_real_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("onnxruntime")
    from aurel.vision.center_face import center_face_file
    from aurel.vision.detectors import make_detector

    if center_face_file() is None:
        pytest.skip("CenterFace is not installed")
    monkeypatch.setattr("aurel.vision.face_mesh.face_mesh_file", face_mesh_file)
    picture = Image.fromarray(data.astronaut())
    (tmp_path / "in").mkdir()
    picture.rotate(25, resample=Image.Resampling.BICUBIC).save("in/tilted.png")
    assert main(["prepare", "in", "--out", "out", "--size", "256", "--workers", "1"]) == 0
    chips = sorted(Path("out/img").rglob("*.jpg"))
    assert [chip.as_posix() for chip in chips] == ["out/img/tilted/0/0.jpg"]
    (face,) = make_detector()(np.asarray(Image.open(chips[0])))
    assert face.points is not None
    right, left = np.array(face.points[:2])
    assert abs(left[1] - right[1]) < 8 and 0.24 < (left[0] - right[0]) / 256 < 0.32
    landmarks = Path("out/list/faces_train_landmark.txt")
    assert landmarks.exists() == (face_mesh_file() is not None)
