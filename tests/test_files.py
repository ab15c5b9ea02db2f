"""Files are written completely or not at all, and so are their folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from aurel.files import atomic_path, delayed_interrupt, save_torch


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


def test_an_error_leaves_earlier_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError):
        write(tmp_path / "empty" / "c.txt", fail=True)
    assert not list((tmp_path / "empty").iterdir())
    write(tmp_path / "c.txt")
    with pytest.raises(RuntimeError):
        write(tmp_path / "c.txt", fail=True)
    assert (tmp_path / "c.txt").read_text() == "new"


def test_an_error_leaves_new_files_of_others(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a" / "b" / "c.txt"):
        (tmp_path / "a" / "other.txt").write_text("of another")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["other.txt"]


def test_the_content_is_on_the_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is synchronized is the one that is renamed, in its full length."""
    steps: list[tuple[str, int, int]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        steps.append(("fsync", status.st_ino, status.st_size))
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        status = os.stat(source)
        steps.append(("replace", status.st_ino, status.st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write(tmp_path / "c.txt")
    file = (tmp_path / "c.txt").stat().st_ino
    assert steps == [("fsync", file, 3), ("replace", file, 3)]


def test_files_of_a_killed_process_are_overwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_path(tmp_path / "c.txt") as temporary:
        raise KeyError
    temporary.write_text("half of a longer content")
    write(tmp_path / "c.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["c.txt"]
    assert (tmp_path / "c.txt").read_text() == "new"


def test_a_block_that_writes_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a" / "c.txt"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Interrupts raise KeyboardInterrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptsWhileSaved:
    """Sends SIGINT to this process when it is pickled."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        signal.raise_signal(signal.SIGINT)
        return OrderedDict, ()


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_while_a_checkpoint_is_written_leaves_it_whole(tmp_path: Path) -> None:
    """The error is still a KeyboardInterrupt."""
    content = {"weight": torch.ones(3), "other": InterruptsWhileSaved(), "bias": torch.zeros(2)}
    with pytest.raises(KeyboardInterrupt):
        save_torch(content, tmp_path / "last.ckpt")
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert loaded["weight"].tolist() == [1, 1, 1] and loaded["bias"].tolist() == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.usefixtures("interrupts")
def test_an_error_in_the_block_comes_before_a_delayed_interrupt() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stop, delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        raise OSError("No space left on device")
    assert isinstance(stop.value.__context__, OSError)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_full_disk_while_a_checkpoint_is_written_is_an_oserror(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys, torch\n"
        "from aurel.files import save_torch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: save_torch({'a': torch.ones(100000)}, sys.argv[1])\n"
        "except OSError as error: print(error)\n"
    )
    save_torch({"a": torch.ones(1)}, tmp_path / "a.pt")
    command = [sys.executable, "-c", code, str(tmp_path / "a.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "File too large after 0.0 MB, " in done.stdout, done.stderr
    assert f" MB are free; the previous file is unchanged: '{tmp_path / 'a.pt'}'" in done.stdout
    assert torch.load(tmp_path / "a.pt", weights_only=True)["a"].tolist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_thread_saves_without_signals(tmp_path: Path) -> None:
    """Handlers can be set in the main thread alone."""
    thread = threading.Thread(target=save_torch, args=({"a": torch.ones(1)}, tmp_path / "a.pt"))
    thread.start()
    thread.join()
    assert torch.load(tmp_path / "a.pt", weights_only=True)["a"].tolist() == [1]
