"""The files of Aff-Wild2, in a small folder of the same layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from aurel.data.aff_wild2 import AffWild2Faces, read_aff_wild2_labels
from aurel.data.clips import ListClips
from aurel.data.readers import read_part
from aurel.data.registry import Part
from aurel.data.transforms import EvalTransform
from aurel.training.datasets import test_splits as splits_for_test
from aurel.training.datasets import training_splits
from aurel.training.options import DataOptions

HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
UNKNOWN = ",".join(["-1"] * 12)


def row(*present: int, unknown: tuple[int, ...] = ()) -> str:
    """Return a line with 1 in the columns `present` and -1 in those `unknown`."""
    columns = range(12)
    return ",".join("1" if c in present else "-1" if c in unknown else "0" for c in columns)


def video(root: Path, part: str, name: str, rows: list[str], pictures: list[int]) -> None:
    file = root / "AU_Detection_Challenge" / part / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    folder = root / "cropped_aligned" / name
    folder.mkdir(parents=True, exist_ok=True)
    for frame in pictures:
        Image.new("RGB", (12, 12), (frame, 0, 0)).save(folder / f"{frame:05d}.jpg", quality=100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "Aff-Wild2"
    rows = [row(0), row(1, unknown=(3,)), UNKNOWN, row(2), row(11)]
    video(root, "Train_Set", "7-60-1920x1080", rows, [1, 2, 3, 5])
    video(root, "Train_Set", "video2_left", [row(4)] * 3, [1, 2, 3])
    video(root, "Train_Set", "video2_right", [row()] * 2, [1, 2, 3])
    video(root, "Validation_Set", "video9", [row(5), row(6)], [1, 2])
    return root


def test_frames_pair_with_their_lines(root: Path) -> None:
    data = AffWild2Faces(root)
    assert data.paths[:4] == [
        "7-60-1920x1080/00001.jpg",
        "7-60-1920x1080/00002.jpg",
        "7-60-1920x1080/00005.jpg",
        "video2_left/00001.jpg",
    ]
    assert data.labels[:3].argmax(1).tolist() == [0, 1, 11]
    assert data.labels.dtype == torch.int8 and data.labels[1, 3] == -1
    assert len(data) == 8 and data.labels.shape == (8, 12)
    assert abs(data[2]["image"].getpixel((6, 6))[0] - 5) <= 1
    assert data.aus.numbers == (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)


def test_a_subject_is_a_file_of_labels(root: Path) -> None:
    data = AffWild2Faces(root, transform=EvalTransform(12, 12))
    assert sorted(set(data.subjects)) == ["7-60-1920x1080", "video2_left", "video2_right"]
    item = data[-1]
    assert item["subject"] == 2 and item["image"].shape == (3, 12, 12)
    assert item["labels"].dtype == torch.float32 and "landmarks" not in item


def test_the_test_part_is_the_official_validation_set(root: Path) -> None:
    data = AffWild2Faces(root, "test")
    assert data.paths == ["video9/00001.jpg", "video9/00002.jpg"]
    with pytest.raises(FileNotFoundError, match="Aff-Wild2 has no val part"):
        AffWild2Faces(root, "val")


def test_folders_elsewhere(root: Path, tmp_path: Path) -> None:
    (root / "annotations").mkdir()
    (root / "AU_Detection_Challenge").rename(root / "annotations" / "AU_Detection_Challenge")
    assert len(AffWild2Faces(root)) == 8
    (root / "annotations" / "AU_Detection_Challenge").rename(tmp_path / "labels")
    (root / "cropped_aligned").rename(tmp_path / "faces")
    data = AffWild2Faces(root, lists=tmp_path / "labels", images=tmp_path / "faces")
    assert len(data) == 8
    with pytest.raises(FileNotFoundError, match="no folder .*Train_Set"):
        AffWild2Faces(root)
    with pytest.raises(FileNotFoundError, match="no folder .*cropped_aligned"):
        AffWild2Faces(root, lists=tmp_path / "labels")


def test_clips_are_runs_of_labeled_frames_with_pictures(root: Path) -> None:
    clips = ListClips(AffWild2Faces(root), frames=2)
    assert [len(clips._frames_of(item)) for item in range(len(clips))] == [2, 1, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the AUs must be AU01,AU02,.*, got ''"),
        ("AU2,AU1\n1,0\n", "line 1: the AUs .* got 'AU2,AU1'"),
        (row(1), "line 1: the AUs"),
        (
            f"{HEADER}\n{row(1)}\n{row(2).replace('1', '9')}\n",
            "line 3: a line must have 12 labels 1, 0 or -1",
        ),
        (f"{HEADER}\n0,1\n0,1\n", "line 2: .* 12 labels .* got '0,1'"),
        (f"{HEADER}\n{row()}\n0,1\n", "lines must be labels separated by commas"),
        (f"{HEADER}\n{row().replace('0', 'x')}\n", "lines must be labels separated by commas"),
    ],
)
def test_bad_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "video1.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"video1\.txt.*{message}"):
        read_aff_wild2_labels(file)


def test_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    file = tmp_path / "video1.txt"
    file.write_bytes(("\ufeff" + f"{HEADER}\r\n{row(3)}\r\n").encode())
    assert read_aff_wild2_labels(file)[:, 3].tolist() == [1]
    file.write_text(HEADER)
    assert read_aff_wild2_labels(file).shape == (0, 12)


def test_missing_pictures_are_named(root: Path) -> None:
    (root / "cropped_aligned" / "video2_left" / "00002.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"video2_left/00002.jpg .*video2_left.txt, line 3"):
        AffWild2Faces(root)[4]
    video(root, "Train_Set", "video3", [row()], [])
    (root / "cropped_aligned" / "video3").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no folder .*video3, whose frames .*video3\.txt"):
        AffWild2Faces(root)


def test_no_frame_at_all(tmp_path: Path) -> None:
    video(tmp_path, "Train_Set", "video1", [row()], [7])
    with pytest.raises(ValueError, match="must hold pictures of .*Train_Set labels, got none"):
        AffWild2Faces(tmp_path)


@pytest.mark.parametrize("name", ["Aff-Wild2", "AffWild2", "aff_wild2"])
def test_every_spelling_of_the_name(root: Path, name: str) -> None:
    assert isinstance(read_part(Part(name, root=str(root))), AffWild2Faces)


def test_from_a_recipe(root: Path) -> None:
    chosen = {"root": str(root), "resize": 12, "crop": 12, "validation": 0.3}
    options = DataOptions("Aff-Wild2", fold=None, **chosen)
    splits = training_splits(options)
    assert splits.aus.name == "Aff-Wild2" and splits.protocol is not None
    assert splits.protocol["test_subjects"] == ["Aff-Wild2/video9"]
    assert len(splits.protocol["validation_subjects"]) == 1
    assert splits_for_test(options).protocol["test_subjects"] == ["Aff-Wild2/video9"]  # type: ignore[index]
    with pytest.raises(ValueError, match="data.fold must be null for Aff-Wild2"):
        training_splits(DataOptions("Aff-Wild2", fold=1, **chosen))
