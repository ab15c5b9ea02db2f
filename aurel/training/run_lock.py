"""A lock on the folder of a run, which only one run at a time may write."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

LOCK = ".run.lock"
_OWNER = ".run.owner"
_WORKERS_END = 10.0


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; of the processes of a run, only the first takes it.

    The system releases the lock when the process ends, however it ends. Processes that read data
    for a killed run may hold it for a few seconds longer, for which this waits.

    Args:
        folder: folder of the run; created where it is missing.

    Raises:
        ValueError: another run holds it; the message names its process.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK), folder / _OWNER
    try:
        lock.acquire(timeout=_WORKERS_END if _ended(owner) else 0)
    except Timeout:
        raise ValueError(_refusal(folder)) from None
    try:
        owner.write_text(f"{os.getpid()} {platform.node()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def check_not_held(folder: Path) -> None:
    """Raise ValueError where another run holds the lock of a folder, which need not exist."""
    if (folder / LOCK).exists():
        with hold_folder(folder):
            pass


def _ended(owner: Path) -> bool:
    """Return whether the process that wrote `owner` was of this machine, and has ended."""
    try:
        number, host = owner.read_text().split()
        os.kill(int(number), 0)
    except ProcessLookupError:
        return host == platform.node()
    except (OSError, ValueError):
        pass
    return False


def _refusal(folder: Path) -> str:
    try:
        number, host = (folder / _OWNER).read_text().split()
        process = f"process {number} on {host}"
    except (OSError, ValueError):
        process = "another process"
    return (
        f"out must be a folder that no other run writes, got {folder}: {process} writes it; wait "
        "for it to end, or choose another --out"
    )
