"""Files that are complete or absent."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`, and rename it to `target` when the block succeeds.

    The content is on the disk (fsync) before the rename, so a crash or a loss of power leaves the
    previous file or the new one, whole. Missing folders are created. After an error the temporary
    file and the new folders are removed, and a file that was at `target` is unchanged. A killed
    process leaves its temporary file, which the next write of `target` overwrites; so only one
    process at a time may write a target. The temporary name is hidden and keeps the suffix, by
    which some writers choose the format.

    Args:
        target: the file to write.

    Raises:
        FileNotFoundError: the block wrote no file.
        OSError: the disk is full; the message has the file and the free space.
    """
    target = Path(target)
    new_folders = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        size = temporary.stat().st_size if full and temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(target.parent).free
        with suppress(OSError):  # another process has put a file there
            for folder in new_folders:
                folder.rmdir()
        if full:
            raise _no_space(target, error, size, free) from error
        raise


def write_json(path: Path | str, content: Any) -> None:
    """Write a JSON file, with null for numbers that are not finite; complete or absent."""
    with atomic_path(path) as partial:
        text = json.dumps(_plain(content), indent=2, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_regular(path: os.PathLike[str] | str) -> None:
    """Raise unless `path` is a file with content, and not a pipe or a device, which may not end.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a folder, a pipe, a socket or a device.
    """
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind):
        name = next((name for is_kind, name in _KINDS if is_kind(kind)), "a special file")
        raise ValueError(f"{os.fspath(path)} must be a regular file, got {name}")


def _no_space(target: Path, error: Any, size: int, free: int) -> OSError:
    kept = "; the previous file is unchanged" if target.exists() else ""
    reason = f"{error.strerror} after {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free{kept}"
    return OSError(error.errno, reason, str(target))


def save_torch(content: dict[str, Any], path: Path | str) -> None:
    """Write `content` to `path` by `torch.save`; the file is complete or absent.

    An interrupt (Ctrl-C) takes effect when the file is written: `torch.save` would replace it by
    a RuntimeError about positions in the file, as it does with an OSError.

    Args:
        content: a dict of tensors, numbers, strings, lists and dicts.
        path: the file to write.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    import torch

    with delayed_interrupt(), atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is not None:
                raise cause from None
            raise


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Run the block to its end, and then the handler of an interrupt (SIGINT) that came meanwhile.

    Outside the main thread, where no handler of Python runs, and under a handler that Python did
    not install, the block runs as it is.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            handler(*received[0])
