"""Encodings of lists, spellings of people, and points in aligned faces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aurel.data.lists import ListDataset, frame_key, read_labels, read_paths
from aurel.data.points import move_points
from aurel.data.subjects import check_apart, normalized_subject
from aurel.data.text import numbered_lines, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_in_the_encodings_of_windows(tmp_path: Path, encoding: str, end: str) -> None:
    file = tmp_path / "list.txt"
    start = "\ufeff" if encoding == "utf-16-le" else ""
    file.write_bytes((start + end.join(["ä/1.jpg", "b/2.jpg", ""])).encode(encoding))
    assert read_paths(file) == ["ä/1.jpg", "b/2.jpg"]
    file.write_bytes((start + end.join(["1 0", "0 9"])).encode(encoding))
    assert read_labels(file, 2).tolist() == [[1, 0], [0, -1]]


@pytest.mark.parametrize("content", [b"\xff\xfea", b"\xe4/1.jpg", "a/1.jpg\n".encode("utf-16-le")])
def test_other_encodings_are_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"list.txt must be a text file in UTF-8, got "):
        read_text(file)


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\n a \n\n b\n\n")
    assert numbered_lines(file) == [(2, "a"), (4, "b")]


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    for kind in ("img_path", "label"):
        (tmp_path / f"BP4D_test_{kind}_fold1.txt").write_bytes(b"\xef\xbb\xbf\r\n")
    with pytest.raises(ValueError, match=r"BP4D_test_img_path_fold1.txt must list at least one"):
        ListDataset(tmp_path, split="test")


@pytest.mark.parametrize(
    "spelling",
    ["F000", "f000", "F0", "./F000", ".//F000", "/F000", "//F000", "img/../F000", "/data/img/F000",
     "F000/", " F000", "img\\..\\F000"],
)  # fmt: skip
def test_spellings_of_a_person(spelling: str) -> None:
    assert normalized_subject(spelling) == "f0"
    with pytest.raises(ValueError, match=r"train and test must have no subject in common, got 1"):
        check_apart(["F000", "F001"], [spelling], "train and test")


def test_other_people_are_other_people() -> None:
    names = ["F001", "F010", "M001", "F0010", "BP4D/F001", "DISFA/F001", "N_01.jpg", "N_1.jpg"]
    assert len({normalized_subject(name) for name in names}) == len(names) - 1  # F010 is F0010
    assert normalized_subject("BP4D/./F001") == normalized_subject("bp4d/f1")
    with pytest.raises(ValueError, match=r"got 1 \(F001 = f1\)"):
        check_apart(["F001"], ["f1"], "train and test")


@pytest.mark.parametrize("path", ["./F001/T1/1.jpg", ".//F001/T1/1.jpg", "img/../F001/T1/1.jpg"])
def test_spellings_of_a_path(tmp_path: Path, path: str) -> None:
    for found in (path, str(tmp_path / "img" / "F001" / "T1" / "1.jpg")):
        (tmp_path / "img").mkdir(exist_ok=True)
        (tmp_path / "BP4D_train_img_path_fold1.txt").write_text(found)
        (tmp_path / "BP4D_train_label_fold1.txt").write_text("0 " * 12)
        data = ListDataset(tmp_path)
        assert data.subjects == ["F001"] and data.keys == ["F001/T1/1"]
    (tmp_path / "BP4D_train_img_path_fold1.txt").write_text("/elsewhere/F001/T1/1.jpg")
    with pytest.raises(ValueError, match=r"fold1.txt, line 1: a path must be relative to .*/img"):
        ListDataset(tmp_path)


def test_names_of_frames_have_no_suffix_and_no_zeros() -> None:
    names = ["F001/T1/0007.jpg", "./F001/T1/7.png", "F001/T1/frame_007.jpg", "a/000.jpg", "a/b.jpg"]
    assert [frame_key(name) for name in names] == [
        "F001/T1/7", "F001/T1/7", "F001/T1/frame_7", "a/0", "a/b",
    ]  # fmt: skip


def test_points_move_with_their_picture() -> None:
    points = torch.tensor([[[1.0, 2.0], [float("nan"), 5.0]]])
    matrix = torch.tensor([[0.0, -2.0, 10.0], [2.0, 0.0, 20.0]], dtype=torch.float64)
    moved = move_points(points, matrix)
    assert moved.dtype == torch.float32 and moved[0, 0].tolist() == [6, 22]
    assert moved[0, 1].isnan().all()
    assert move_points(points[0, 0], matrix).tolist() == [6, 22]
    with pytest.raises(ValueError, match=r"points must have the shape \(..., 2\), got \(3,\)"):
        move_points(torch.zeros(3), matrix)
    with pytest.raises(ValueError, match=r"matrix must have the shape \(2, 3\), got \(3, 3\)"):
        move_points(points, torch.eye(3))
