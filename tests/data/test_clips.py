"""Clips over list files: gaps, ends, random starts, and labels that enter scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from aurel.data.clips import ListClips, frame_runs
from aurel.data.lists import ListDataset
from aurel.data.transforms import EvalTransform, TrainTransform
from aurel.facs import FLIP_49, AUSet

# Two videos of F001, the second with a gap and out of order; one of M007.
FRAMES = {"F001/T1": (7, 8, 9, 10, 11), "F001/T2": (20, 3, 1, 2, 21), "M007/T1": (1, 2)}


def made(root: Path, landmarks: bool = False) -> ListDataset:
    """Return images whose red is the number of their line; AU01 is present in every second."""
    paths = [f"{video}/{n}.png" for video, numbers in FRAMES.items() for n in numbers]
    for line, path in enumerate(paths):
        file = root / "img" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (line, 0, 0)).save(file)
    (root / "list").mkdir()

    def write(kind: str, rows: list[str]) -> None:
        (root / "list" / f"mine_train_{kind}_fold1.txt").write_text("\n".join(rows))

    write("path", paths)
    write("label", [f"{line % 2} {int(line > 5)}" for line in range(len(paths))])
    if landmarks:
        write("landmark", [" ".join([str(line)] * 98) for line in range(len(paths))])
    return ListDataset(root, "mine", aus=[1, 12])


def lines(clip: dict[str, Any]) -> list[int]:
    """Return the line of each frame, which is its color."""
    return clip["image"][:, 0, 0, 0].tolist()


def test_runs_are_gap_free_and_in_order_of_time() -> None:
    paths = ["a/9.jpg", "a/11.jpg", "b/1.jpg", "a/10.jpg", "a/013.jpg", "b/2.jpg"]
    assert frame_runs(paths) == [[0, 3, 1], [4], [2, 5]]
    names = ["SN002/SN002_9.png", "SN002/SN002_10.png", "SN002/SN003_11.png"]
    assert frame_runs(names) == [[0, 1], [2]]
    assert frame_runs([]) == []
    # The same frame twice is no sequence.
    assert frame_runs(["a/1.jpg", "a/1.jpg", "a/2.jpg"]) == [[0], [1, 2]]
    with pytest.raises(ValueError, match="must end with a number, .*got a/face.jpg"):
        frame_runs(["a/1.jpg", "a/face.jpg"])


def test_scoring_takes_every_frame_once(tmp_path: Path) -> None:
    data = made(tmp_path)
    clips = ListClips(data, 2)
    assert clips.subjects == ["F001"] * 6 + ["M007"]
    shown = [lines(clip) for clip in clips]
    assert shown == [[0, 1], [2, 3], [4, 4], [7, 8], [6, 6], [5, 9], [10, 11]]
    counted = []
    for clip in clips:
        assert clip["image"].shape == (2, 3, 10, 12) and clip["image"].dtype == torch.uint8
        for line, labels in zip(lines(clip), clip["labels"], strict=True):
            if (labels >= 0).all():
                assert labels.tolist() == data.labels[line].tolist()
                counted.append(line)
            else:
                assert labels.tolist() == [-1, -1]
    assert sorted(counted) == list(range(12))


def test_context_repeats_the_ends_and_does_not_count(tmp_path: Path) -> None:
    clips = ListClips(made(tmp_path), 3, context=2)
    first, second = clips[0], clips[1]
    assert lines(first) == [0, 0, 0, 1, 2, 3, 4]
    assert lines(second) == [1, 2, 3, 4, 4, 4, 4]
    known = [(clip["labels"][:, 0] >= 0).tolist() for clip in (first, second)]
    assert known == [[False] * 2 + [True] * 3 + [False] * 2, [False] * 2 + [True] * 2 + [False] * 3]


def test_training_clips_start_anywhere_in_their_run(tmp_path: Path) -> None:
    data = made(tmp_path)
    clips = ListClips(data, 3, at_random=True)
    assert len(clips) == 4 and clips.subjects == ["F001", "F001", "F001", "M007"]
    samples = [[tuple(lines(clip)) for clip in clips] for _ in range(30)]
    assert {row[0] for row in samples} == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}
    # Shorter than a clip: from the start, and the last frame again.
    assert {row[3] for row in samples} == {(10, 11, 11)}
    assert clips[3]["labels"].tolist() == [[0, 1], [1, 1], [-1, -1]]
    assert torch.equal(clips.labels_of([3, 0]), data.labels[[10, 11, 0, 1, 2, 3, 4]])
    plain = clips.side_by_side()
    assert [lines(clip) for clip in plain] == [lines(clip) for clip in ListClips(data, 3)]
    assert torch.equal(plain.labels_of([1]), data.labels[3:5])


def test_all_frames_are_augmented_alike(tmp_path: Path) -> None:
    data = made(tmp_path, landmarks=True)
    aus = AUSet.of(["L12", "R12"])
    transform = TrainTransform(aus, resize=10, crop=8)
    shown = ListClips(data, 2, transform=lambda sample: sample)[0]
    noise = torch.randint(0, 255, (1, 3, 10, 12), dtype=torch.uint8)
    still = {**shown, "image": noise.repeat(2, 1, 1, 1), "labels": torch.tensor([[1, 0], [0, 0]])}
    still["landmarks"] = still["landmarks"][:1].repeat(2, 1, 1)
    flips = 0
    for seed in range(20):
        torch.manual_seed(seed)
        out = transform(still)
        assert out["image"].shape == (2, 3, 8, 8) and out["landmarks"].shape == (2, 49, 2)
        torch.testing.assert_close(out["image"][0], out["image"][1])
        assert torch.equal(out["landmarks"][0], out["landmarks"][1])
        # The same random numbers give the same single image.
        torch.manual_seed(seed)
        single = transform({key: still[key][0] for key in ("image", "labels", "landmarks")})
        torch.testing.assert_close(out["image"][0], single["image"])
        assert torch.equal(out["labels"][0], single["labels"])
        assert torch.equal(out["landmarks"][0], single["landmarks"])
        flips += int(out["labels"][0, 1])
        assert out["labels"][1].tolist() == [0, 0]
    assert 0 < flips < 20
    assert len(FLIP_49) == 49


def test_landmarks_and_subject_come_along(tmp_path: Path) -> None:
    clips = ListClips(made(tmp_path, landmarks=True), 2, transform=EvalTransform(10, 10))
    clip = clips[6]
    assert clip["image"].shape == (2, 3, 10, 10)
    assert clip["landmarks"].shape == (2, 49, 2) and clip["subject"] == 1
    # The crop takes one pixel off on either side.
    found: Tensor = clip["landmarks"][:, 0]
    assert found.tolist() == [[9, 10], [10, 11]]


def test_frames_of_other_sizes_are_named(tmp_path: Path) -> None:
    data = made(tmp_path)
    Image.new("RGB", (9, 10)).save(tmp_path / "img/F001/T1/8.png")
    with pytest.raises(ValueError, match=r"one size, got 12 x 10 in .*/7.png, 9 x 10 in .*/8.png"):
        ListClips(data, 2)[0]


def test_bad_arguments(tmp_path: Path) -> None:
    data = made(tmp_path)
    for arguments, message in (
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"context": -1}, "context must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ListClips(data, **arguments)
    data.transform = EvalTransform(10, 10)
    with pytest.raises(ValueError, match="data.transform must be None"):
        ListClips(data)
