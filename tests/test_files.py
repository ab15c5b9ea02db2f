"""Files are complete or not there, and so are their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurel.files import atomic_path


def write(target: Path, fail: bool = False) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        if fail:
            raise RuntimeError("a full disk")


def test_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c.txt")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / "a" / "b" / "c.txt", fail=True)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError):
        write(tmp_path / "empty" / "c.txt", fail=True)
    assert not list((tmp_path / "empty").iterdir())
    write(tmp_path / "c.txt")
    with pytest.raises(RuntimeError):
        write(tmp_path / "c.txt", fail=True)
    assert (tmp_path / "c.txt").read_text() == "new"


def test_an_error_leaves_what_came_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a" / "b" / "c.txt"):
        (tmp_path / "a" / "other.txt").write_text("of another")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other.txt"]
