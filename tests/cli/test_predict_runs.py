"""`aurel predict` on hostile files, with --resume and --overwrite, and in processes that die."""

from __future__ import annotations

import csv
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("rich")
pytest.importorskip("av")

from aurel.cli.main import main
from aurel.models import create_model, save_model
from aurel.tables import AUTable
from aurel.vision.file_names import path_of
from aurel.vision.outputs import VideoWriter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(create_model("au_windows", aus=[1, 2, 12]).eval(), tmp_path / "m.ckpt")
    (tmp_path / "in").mkdir()
    return tmp_path


def predict(*words: Any, out: str = "out") -> int:
    options = ["--cropped", "--csv-only", "--device", "cpu", "--checkpoint", "m.ckpt"]
    return main(["predict", *map(str, words), *options, "--out", out])


def photo(path: Path | bytes, level: int = 90) -> None:
    with open(path, "wb") as file:
        Image.new("RGB", (70, 70), (level, 255 - level, 9)).save(file, "PNG")


def video(path: Path, frames: int = 3, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    with VideoWriter(path, (64, 64), 10) as writer:
        for _ in range(frames):
            writer.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))


def manifest(out: str = "out") -> dict[str, dict[str, str]]:
    with (Path(out) / "manifest.csv").open(newline="") as file:
        return {row["input"]: row for row in csv.DictReader(file)}


def tables(out: str = "out") -> dict[str, bytes]:
    root = Path(out) / "tables"
    return {p.name: p.read_bytes() for p in sorted(root.iterdir()) if p.is_file()}


def test_no_file_of_a_hostile_folder_ends_a_run(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("good.png", "new\nline.png", "l" * 250 + ".png", '"quote,\u00e4.png', "%03d.png")
    for name in names:
        photo(folder / "in" / name)
    photo(b"in/caf\xe9.png")
    os.mkfifo("in/pipe.mp4")
    os.symlink("loop.png", "in/loop.png")
    os.symlink(folder / "in", "in/again")
    os.symlink("/dev/zero", "in/zero.mp4")
    (folder / "in/.hidden.png").touch()
    (folder / "in/notes.txt").write_text("text\n")
    (folder / "in/labels.csv").write_text("a,b\n")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("in/socket")
        assert predict("in", "--workers", 1) == 0
    assert len(tables()) == 6
    status = {row["status"] for row in manifest().values()}
    assert status == {"done", "skipped"}
    read = {os.fsencode(path_of(row)) for row in manifest() if manifest()[row]["status"] == "done"}
    assert read == {os.fsencode(f"in/{name}") for name in names} | {b"in/caf\xe9.png"}
    lines = capfd.readouterr().err
    assert "skipped 1 hidden item" in lines
    for name in ("notes.txt", "labels.csv", "pipe.mp4", "loop.png", "zero.mp4", "socket"):
        assert name in lines


def test_named_pipes_and_devices_are_errors(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    assert predict("pipe", "/dev/zero", "gone.mp4", "--workers", 1) == 2
    lines = capfd.readouterr().err
    for line in ("pipe is not a regular file", "/dev/zero is not", "gone.mp4 does not exist"):
        assert line in lines


def test_a_folder_without_permission_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    photo(folder / "in/a.png")
    (folder / "in/closed").mkdir()
    names = os.listdir

    def listdir(path: Path) -> list[str]:  # root may read every folder
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return names(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert predict("in", "--workers", 1) == 2
    assert "in/closed cannot be read" in capfd.readouterr().err
    assert set(tables()) == {"a.csv"}


def test_results_are_not_overwritten_unless_asked_for(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo(folder / "in/a.png", 10)
    photo(folder / "in/b.png", 20)
    assert predict("in") == 0
    before = tables()
    assert predict("in") == 2
    assert "--resume" in capfd.readouterr().err and tables() == before
    assert predict("in", "--resume", "--threshold", 0.3) == 2
    assert "--overwrite" in capfd.readouterr().err and tables() == before
    (folder / "in/b.png").unlink()
    assert predict("in", "--overwrite") == 0
    assert set(tables()) == {"a.csv"} and set(manifest()) == {"in/a.png"}


def test_a_resumed_run_predicts_new_and_changed_and_failed_files_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        photo(folder / f"in/{name}.png")
    (folder / "in/c.png").write_bytes(b"junk")
    assert predict("in") == 2
    first = {path.name: path.stat().st_mtime_ns for path in Path("out/tables").iterdir()}
    photo(folder / "in/b.png", 200)
    os.utime("in/b.png", ns=(1, 1))
    photo(folder / "in/c.png")
    (folder / "in/other").mkdir()
    photo(folder / "in/other/a.png")
    assert predict("in", "--resume") == 0
    assert "skipped 1 file that an earlier run has done" in capfd.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in Path("out/tables").iterdir()}
    assert set(after) == {"a.csv", "b.csv", "c.csv", "a-2.csv"}
    assert after["a.csv"] == first["a.csv"] and after["b.csv"] != first["b.csv"]
    assert {row["status"] for row in manifest().values()} == {"done"}


def test_results_are_the_same_for_any_number_of_workers(folder: Path) -> None:
    for number in range(3):
        video(folder / f"in/v{number}.mp4", 5, seed=number)
    for number in range(5):
        photo(folder / f"in/p{number}.png", 40 * number)
    for workers in (1, 2):
        assert predict("in", "--workers", workers, "--batch-size", 3, out=f"out{workers}") == 0
    assert tables("out1") == tables("out2") and len(tables("out1")) == 8
    assert list(manifest("out1")) == list(manifest("out2"))


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_without_loss(folder: Path) -> None:
    for number in range(4):
        video(folder / f"in/v{number}.mp4", 40, seed=number)
    assert predict("in", "--workers", 1, out="whole") == 0
    words = ["in", "--cropped", "--csv-only", "--checkpoint", "m.ckpt", "--out", "out"]
    command = [sys.executable, "-m", "aurel.cli.main", "predict", *words, "--workers", "1"]
    run = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while run.poll() is None and not (Path("out/manifest.csv").is_file() and len(manifest()) >= 1):
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    (folder / "out/tables").mkdir(exist_ok=True)
    (folder / "out/tables/.v3.partial.csv").write_text("half a row")
    with open("out/manifest.csv", "ab") as file:
        file.write(b"in/v3.mp4,do")
    assert predict("in", "--resume", "--workers", 1) == 0
    assert tables() == tables("whole")
    assert [row["status"] for row in manifest().values()] == ["done"] * 4
    assert sorted(p.name for p in Path("out").iterdir()) == ["manifest.csv", "tables"]


def test_two_runs_do_not_share_a_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    photo(folder / "in/a.png")
    (folder / "out").mkdir()
    with FileLock("out/.lock"):
        assert predict("in") == 2
    assert "out is in use by another run" in capfd.readouterr().err


def test_a_plan_that_another_run_has_overtaken_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The names of both runs' results would be the same, and the rows of one would be lost."""
    from aurel.cli import predict as command

    for name in ("x/a.png", "y/a.png"):
        (folder / name).parent.mkdir()
        photo(folder / name)
    load = command._runner

    def load_slowly(*args: object) -> object:
        monkeypatch.setattr(command, "_runner", load)
        assert predict("x", "--resume", "--workers", 1) == 0
        return load(*args)

    monkeypatch.setattr(command, "_runner", load_slowly)
    assert predict("y", "--resume", "--workers", 1) == 2
    assert "another run" in capfd.readouterr().err and set(manifest()) == {"x/a.png"}
    assert predict("y", "--resume", "--workers", 1) == 0
    assert {row["name"] for row in manifest().values()} == {"a", "a-2"}


def test_a_full_disk_is_named_with_the_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from aurel.vision import predict_files

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/tables/a.csv")

    photo(folder / "in/a.png")
    monkeypatch.setattr(predict_files.PredictionTable, "add", full)
    assert predict("in", "--workers", 1) == 2
    lines = capfd.readouterr().err
    assert "in/a.png: No space left on device" in lines and ": out/tables/a.csv" in lines
    assert "no results were written" in lines


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["in", "--checkpoint", "gone.ckpt"], "no checkpoint at gone.ckpt"),
        (["in", "--checkpoint", "pipe"], "no checkpoint at pipe"),
        (["in", "--checkpoint", "in"], "no checkpoint at in"),
        (["", "--checkpoint", "m.ckpt"], "a path must not be empty"),
    ],
)
def test_bad_paths_are_named(
    folder: Path, options: list[str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    photo(folder / "in/a.png")
    os.mkfifo("pipe")
    assert main(["predict", *options, "--out", "out"]) == 2
    assert reason in capfd.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_read_by_aurel_tables(folder: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    video(folder / "in/a.mp4", 4)
    photo(folder / "in/b.png")
    assert predict("in", "--format", kind) == 0
    read = AUTable.read([f"out/tables/a.{kind}", f"out/tables/b.{kind}"])
    assert read.aus.names == ("AU01", "AU02", "AU12")
    assert read.person.tolist() == ["a"] * 4 + ["b"]
    assert read.time[:4] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {account.tool for account in read.accounts} == {"aurel"}
