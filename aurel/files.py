"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `target`, and rename it to `target` when the block ends well.

    The folder is made where there is none. After an error nothing is left behind, no new folder
    either, and a file that was at `target` before is as it was. The temporary name is hidden and
    keeps the suffix, which some writers choose the format by.
    """
    target = Path(target)
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it by now
            for folder in made:
                folder.rmdir()
        raise
