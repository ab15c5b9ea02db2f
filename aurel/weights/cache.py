"""The folder of downloaded files, the checksums recorded beside them, and the offline mode."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

_YES = ("1", "true", "yes", "on")
_CHUNK = 1 << 20


def folder() -> Path:
    """Return the folder of downloaded files.

    It is the environment variable AUREL_WEIGHTS, or else "weights" in the cache folder of the
    platform, such as ``~/.cache/aurel/weights`` on Linux.

    Raises:
        ImportError: platformdirs is not installed.
    """
    if chosen := os.environ.get("AUREL_WEIGHTS"):
        return Path(chosen).expanduser()
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise ImportError(
            "the cache of weights needs platformdirs: pip install 'aurel-au[weights]'; or set "
            "AUREL_WEIGHTS to a folder"
        ) from error
    return user_cache_path("aurel", appauthor=False) / "weights"


def offline() -> bool:
    """Return whether AUREL_OFFLINE or HF_HUB_OFFLINE forbids downloads."""
    return is_set("AUREL_OFFLINE") or is_set("HF_HUB_OFFLINE")


def is_set(variable: str) -> bool:
    """Return whether an environment variable says yes: 1, true, yes or on."""
    return os.environ.get(variable, "").strip().lower() in _YES


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def recorded(path: Path) -> str | None:
    """Return the checksum that was recorded at the first download of `path`, or None."""
    record = _record(path)
    return record.read_text().strip() if record.is_file() else None


def record(path: Path, sha256: str) -> None:
    """Record the checksum of `path` beside it, unless the folder may not be written."""
    with suppress(OSError):
        _record(path).write_text(sha256 + "\n")


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
