"""A failed write leaves the previous checkpoint unchanged."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from aurel.training.checkpoint_io import AtomicCheckpointIO


def saved(path: Path, value: float) -> dict[str, Any]:
    content = {"state_dict": {"w": torch.full((1000,), value)}, "epoch": 1}
    AtomicCheckpointIO().save_checkpoint(content, path)
    return content


def test_a_full_disk_leaves_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    saved(path, 1.0)
    before = path.read_bytes()

    def fails_half_way(content: Any, file: Any) -> None:
        file.write(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fails_half_way)
        with pytest.raises(OSError, match="No space left"):
            saved(path, 2.0)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"][0] == 1


def test_a_kill_in_the_middle_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved(path, 1.0)
    before = path.read_bytes()

    def killed(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            torch.save = killed
            saved(path, 2.0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == before
    saved(path, 2.0)  # a new write replaces the file that the killed process left
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"][0] == 2


def test_a_checkpoint_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "evil.ckpt")
    for asked in (None, False, True):
        with pytest.raises(Exception, match="[Ww]eights.only"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=asked)
