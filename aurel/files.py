"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # another process has put a file there
            for folder in new_folders:
                folder.rmdir()
        raise
