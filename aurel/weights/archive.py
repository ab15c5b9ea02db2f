"""One file out of a zip archive, such as a wheel."""

from __future__ import annotations

import fnmatch
import shutil
import zipfile
from pathlib import Path

from aurel.files import atomic_path


def extract(archive: Path, pattern: str, target: Path) -> None:
    """Write the only member of a zip archive whose path matches `pattern` to `target`.

    Args:
        archive: the zip file.
        pattern: shell-style pattern of the member's path.
        target: the file to write; it is complete or absent.

    Raises:
        ValueError: the file is no zip archive, is damaged, or not exactly one member matches; the
            message lists the members.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            files = [item.filename for item in content.infolist() if not item.is_dir()]
            matching = fnmatch.filter(files, pattern)
            if len(matching) != 1:
                raise ValueError(
                    f"{archive} must hold one file {pattern}, got {len(matching)} of these: "
                    f"{', '.join(files)}"
                )
            with (
                atomic_path(target) as temporary,
                content.open(matching[0]) as source,
                temporary.open("wb") as out,
            ):
                shutil.copyfileobj(source, out)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} must be a zip archive, got a damaged or other file") from error
