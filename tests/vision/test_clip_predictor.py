"""Tracks of faces in a video, and predictions of pieces that equal those of the whole video."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")
pytest.importorskip("rich")

from aurel.cli.main import main
from aurel.models import create_model, load_model, save_model
from aurel.models.windows import windows
from aurel.vision import predict_files
from aurel.vision.clip_predictor import ClipPredictor, links, tracks
from aurel.vision.face_detector import Face, whole_image
from aurel.vision.face_predictor import FoundFaces, to_batches
from aurel.vision.inputs import Video
from aurel.vision.outputs import VideoWriter
from aurel.vision.tracks import overlap

SIDE = 32


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    made = create_model("mdhr", aus=[1, 2, 12], backbone="rest_tiny", channels=8, num_adjacent=2)
    with torch.no_grad():
        made.train()(torch.randn(2, 6, 3, SIDE, SIDE))
    return made.eval()


def crop(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def test_windows_cover_the_stream_with_the_least_frames() -> None:
    for count in range(12):
        for length, context in ((1, 0), (1, 3), (2, 1), (3, 2), (5, 0)):
            pieces: list[int] = []
            for window, start, stop in windows(iter(range(count)), length, context):
                first = len(pieces)
                pieces += window[start:stop]
                assert window == list(range(max(0, first - context), window[-1] + 1))
                assert window[-1] >= min(count - 1, pieces[-1] + context)
                assert len(window) <= length + 2 * context
            assert pieces == list(range(count))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        next(windows([1], 0, 1))


def test_overlap() -> None:
    face = Face(0, 0, 10, 10)
    assert overlap(face, face) == 1
    assert overlap(face, Face(5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert overlap(face, Face(20, 20, 10, 10)) == 0
    assert overlap(Face(0, 0, 0, 0), Face(0, 0, 0, 0)) == 0


def test_a_face_goes_to_the_one_it_overlaps_most() -> None:
    before = [Face(0, 0, 10, 10), Face(30, 0, 10, 10)]
    # A new face is on the left of both, which have moved.
    now = [Face(-20, 0, 10, 10), Face(2, 0, 10, 10), Face(31, 0, 10, 10)]
    assert links(before, now) == {1: 0, 2: 1}
    # Two faces overlap one: it continues as the nearer one, the other is new.
    assert links(before[:1], [Face(3, 0, 10, 10), Face(1, 0, 10, 10)]) == {1: 0}
    assert links([], now) == {} and links(before, []) == {}


def test_tracks_end_where_a_face_is_lost() -> None:
    left, right = Face(0, 0, 10, 10), Face(50, 0, 10, 10)
    frames = [[left], [left, right], [right], [left, right], []]
    assert tracks(frames) == [(0, [0, 0]), (1, [1, 0, 1]), (3, [0])]
    assert tracks([]) == []


@pytest.mark.parametrize("length", [1, 3, 7])
def test_pieces_give_the_numbers_of_each_face_as_one_clip(model: Any, length: int) -> None:
    # The left face is lost in frame 5; the right one comes in frame 2.
    left = [None if place == 5 else crop(place) for place in range(14)]
    right = [None if place < 2 else crop(100 + place) for place in range(14)]
    boxes = (Face(0, 0, 10, 10), Face(50, 0, 10, 10))
    video = []
    for pair in zip(left, right, strict=True):
        seen = [(box, face) for box, face in zip(boxes, pair, strict=True) if face is not None]
        video.append(FoundFaces([box for box, _ in seen], [face for _, face in seen]))
    predictor = ClipPredictor(model, SIDE, detector=whole_image, threshold=0.4)
    found = []
    for window, start, stop in windows(video, length, predictor.context):
        found += predictor.predict_piece(window, start, stop)
    assert [len(faces) for faces in found] == [1, 1, 2, 2, 2, 1] + [2] * 8

    def whole(crops: list[Any]) -> Any:
        (clip,) = to_batches(crops, len(crops))
        with torch.no_grad():
            return model(clip[None]).probs[0].numpy()

    expected = {0: np.concatenate([whole(left[:5]), whole(left[6:])]), 50: whole(right[2:])}
    for x, probs in expected.items():
        predicted = [face for faces in found for face in faces if face.face.x == x]
        np.testing.assert_allclose([face.probs for face in predicted], probs, atol=1e-5)
        assert all((face.present == (face.probs >= 0.4)).all() for face in predicted)


def test_a_photograph_is_a_clip_of_one_frame(model: Any) -> None:
    pictures = [crop(seed) for seed in range(3)]
    predictor = ClipPredictor(model, SIDE, detector=whole_image)
    found = predictor(pictures)
    (frames,) = to_batches([predictor.find(picture).crops[0] for picture in pictures], 3)
    with torch.no_grad():
        expected = [model(frame[None, None]).probs[0, 0] for frame in frames]
    for (face,), probs in zip(found, expected, strict=True):
        np.testing.assert_allclose(face.probs, probs.numpy(), atol=1e-5)


def test_predict_a_video_and_a_photograph(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model, tmp_path / "mdhr.ckpt", image_size=SIDE, resize=SIDE)
    with VideoWriter(tmp_path / "a.mp4", (SIDE, SIDE), 25) as writer:
        for place in range(20):
            picture = np.full((SIDE, SIDE, 3), 40, dtype=np.uint8)
            picture[place : place + 8, 4:28] = 220
            writer.write(picture)
    lengths: list[int] = []
    predict_piece = ClipPredictor.predict_piece

    def counted(self: ClipPredictor, window: Any, start: int, stop: int) -> Any:
        lengths.append(len(window))
        return predict_piece(self, window, start, stop)

    monkeypatch.setattr(ClipPredictor, "predict_piece", counted)
    # Two frames per piece, although the batch size is larger.
    monkeypatch.setattr(predict_files, "MAX_PIXELS", 2 * SIDE * SIDE)
    words = ["predict", str(tmp_path / "a.mp4"), "--cropped", "--device", "cpu"]
    words += ["--checkpoint", str(tmp_path / "mdhr.ckpt"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    with (tmp_path / "out" / "tables" / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Video(tmp_path / "a.mp4") as video:
        (clip,) = to_batches([frame.image for frame in video], 99)
    loaded = load_model(tmp_path / "mdhr.ckpt")
    with torch.no_grad():
        expected = loaded(clip[None]).probs[0].numpy()
    assert [row["frame"] for row in rows] == [str(place) for place in range(20)]
    found = [[float(row[name]) for name in loaded.aus.names] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert max(lengths) == 2 + 2 * loaded.context
    assert (tmp_path / "out" / "annotated" / "a.mp4").is_file()
