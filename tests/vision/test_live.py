"""Cameras and streams: a video from a local server, rows that are appended, the newest frame."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("rich")

from aurel.cli.errors import guarded
from aurel.cli.live_view import bars
from aurel.cli.main import main
from aurel.models import create_model, save_model
from aurel.vision.face_detector import Face
from aurel.vision.face_predictor import FacePrediction
from aurel.vision.frame import Frame, InputError
from aurel.vision.live import is_live, live_frames, newest

WriteVideo = Callable[..., Path]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_cameras_and_streams_are_distinguished_from_files() -> None:
    assert all(map(is_live, ("0", "12", "rtsp://camera/1", "HTTP://a/b.mp4")))
    assert not any(map(is_live, ("a.mp4", "0.mp4", "folder/0", "./0", "file:a.mp4")))


def test_the_newest_frame_is_next_and_the_last_one_is_never_lost() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)

    def fast() -> Iterator[Frame]:
        for index in range(50):
            yield Frame(index, index / 25, picture)
            time.sleep(0.002)

    seen = []
    for frame in newest(fast()):
        seen.append(frame.index)
        time.sleep(0.02)
    assert seen == sorted(set(seen)) and seen[-1] == 49 and len(seen) < 40


def test_a_stream_is_predicted_into_a_file_that_grows(
    tmp_path: Path, write_video: WriteVideo, address: str
) -> None:
    write_video(tmp_path / "a.mp4", 12)
    save_model(create_model("au_windows", aus=[1, 12]).eval(), tmp_path / "m.ckpt")
    words = ["predict", f"{address}/a.mp4", "--cropped", "--checkpoint", str(tmp_path / "m.ckpt")]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    counts = []
    for _ in range(2):
        assert main(words) == 0
        with (tmp_path / "out/live.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        counts.append(len(rows))
        assert rows[-1]["frame"] == "11" and rows[-1]["person"] == "0"
        assert 0 <= float(rows[-1]["AU12"]) <= 1
    assert counts[1] > counts[0] > 0


def test_a_stream_that_cannot_be_read_is_named(
    tmp_path: Path, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"gone\.mp4 cannot be read"):
        list(live_frames(f"{address}/gone.mp4"))
    with pytest.raises(InputError, match="camera 99 cannot be opened"):
        list(live_frames("99"))
    words = ["predict", "0", "a.png", "--checkpoint", "c.ckpt", "--out", str(tmp_path / "out")]
    assert guarded(lambda: main(words)) == 2
    assert "must be the only input" in capfd.readouterr().err


def test_a_bar_is_as_long_as_the_probability() -> None:
    from rich.console import Console

    probs = np.array([0.5, 1.0, np.nan])
    face = FacePrediction(Face(0, 0, 9, 9), probs, probs >= 0.5)
    console = Console(width=120, record=True)
    console.print(bars(("AU01", "AU02", "AU04"), [face], [3], "1.0 s"))
    lines = {line.split()[0]: line for line in console.export_text().splitlines() if line.strip()}
    assert [lines[name].count("█") for name in ("AU01", "AU02", "AU04")] == [10, 20, 0]
    assert any("person 3" in line for line in lines.values())
