"""Names as text and back, and names of results; for names of any bytes and length."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cv2")

from aurel.vision.file_names import LONGEST, path_of, result_names, shown


def names_of(folder: Path, *inputs: str, taken: tuple[str, ...] = ()) -> list[str]:
    paths = [folder / name for name in inputs]
    return result_names(paths, lambda name: [folder / f"{name}.png"], taken)


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_any_name_is_printable_and_can_be_recovered(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    text = shown(path)
    assert text.isprintable()
    text.encode()
    assert path_of(text) == path


def test_usual_names_are_written_as_they_are() -> None:
    assert shown(Path("in/ä b%20.jpg")) == "in/ä b%20.jpg"
    assert shown(Path(os.fsdecode(b"caf\xe9.jpg"))) == "file:caf%E9.jpg"
    assert shown(Path("a\nb.jpg")) == "file:a%0Ab.jpg"


def test_no_two_inputs_share_a_name(tmp_path: Path) -> None:
    inputs = ["a/b.jpg", "c/b.mp4", "a/b.mp4", "a/B.bmp", "a/x.y.z.jpg", "a/x.y.jpg", "in/b.mp4"]
    assert names_of(tmp_path, *inputs) == [
        *("a/b", "c/b", "a/b-2", "a/B-3", "a/x.y.z", "a/x.y", "in/b"),
    ]


def test_folders_are_kept_only_to_distinguish_files(tmp_path: Path) -> None:
    assert names_of(tmp_path) == []
    assert names_of(tmp_path, "a/x.jpg", "b/c/y.jpg") == ["x", "y"]
    assert names_of(tmp_path, "a/s/x.jpg", "b/s/x.jpg") == ["a/s/x", "b/s/x"]
    assert names_of(tmp_path, "a/x.jpg", "a/x.png") == ["x", "x-2"]
    root = Path(tmp_path.anchor)
    paths = [root / "x.jpg", root / "a" / "x.jpg"]
    assert result_names(paths, lambda name: []) == ["x", "a/x"]


def test_names_that_are_taken_and_inputs_are_avoided(tmp_path: Path) -> None:
    assert names_of(tmp_path, "b/A.jpg", taken=("a", "a-2")) == ["A-3"]
    assert names_of(tmp_path, "a.png", "b.jpg") == ["a-2", "b"]


def test_long_and_odd_names_fit_into_a_file_system(tmp_path: Path) -> None:
    first, second = "ä" * 120 + "1.jpg", "ä" * 120 + "2.jpg"
    odd = os.fsdecode(b"caf\xe9\n.jpg")
    names = names_of(tmp_path, first, second, odd)
    assert len(set(names)) == 3
    for name in names:
        assert len(name.encode()) <= LONGEST
        (tmp_path / f".{name}.partial.parquet").touch()
