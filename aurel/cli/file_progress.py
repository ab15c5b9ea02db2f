"""Progress bars over files, and over the frames of the current file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
except ImportError as error:
    raise ImportError("progress bars need rich: pip install 'aurel-au[viz]'") from error


@contextmanager
def file_progress(files: int) -> Iterator[Callable[[Path, int, int | None], None]]:
    """Show progress on stderr if it is a terminal.

    Args:
        files: number of files.

    Returns:
        A function to call with the current file, the number of its frames that are done, and the
        number of all its frames, or None if unknown.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        over_files = progress.add_task("files", total=files)
        over_frames = progress.add_task("frames", total=None, visible=False)
        seen: dict[Path, None] = {}

        def update(path: Path, done: int, total: int | None) -> None:
            seen[path] = None
            progress.update(over_files, completed=len(seen))
            progress.update(
                over_frames,
                description=path.name,
                completed=done,
                total=total,
                visible=total != 1,
            )

        yield update
