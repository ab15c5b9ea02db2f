"""Files of the registry in the cache: downloaded once, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurel.weights import cache
from aurel.weights.agreement import require_agreement
from aurel.weights.archive import extract
from aurel.weights.entry import Weights
from aurel.weights.registry import weights_info
from aurel.weights.transfer import DownloadError, Progress, download


def path(name: str) -> Path:
    """Return where the file of the weights `name` is in the cache, or will be.

    Raises:
        ValueError: no such weights.
    """
    return cache.folder() / weights_info(name).cached_file


def find(name: str) -> Path | None:
    """Return the file of the weights `name`, or None where it is not in the cache.

    Raises:
        ValueError: no such weights.
    """
    file = path(name)
    return file if file.is_file() else None


def get(name: str, *, agree: bool = False, progress: Progress | None = None) -> Path:
    """Return the file of the weights `name`, downloaded where it is missing.

    The terms of the license are shown once. The checksum must be that of the registry; where none
    was published, the first download records one in the cache, and later ones must have the same.
    A file that a user has put there is checked once. Of several processes one downloads.

    Args:
        name: one of `list_weights()`.
        agree: agree to the terms without a question; see `aurel.weights.agreement`.
        progress: called with the number of bytes that are complete, and of all or None.

    Raises:
        ValueError: no such weights, terms that are not agreed to, or a file with another checksum.
        FileNotFoundError: the file is missing, and the offline mode forbids downloads.
        OSError: the download failed (`DownloadError`), or the cache cannot be written.
        ImportError: requests or filelock is not installed.
    """
    entry, file = weights_info(name), path(name)
    require_agreement(entry, agree)
    if _is_complete(file, entry):
        return file
    if cache.offline():
        raise FileNotFoundError(
            f"{file} must exist in offline mode (AUREL_OFFLINE, HF_HUB_OFFLINE); download {name} "
            f"where there is a network: {entry.source}"
        )
    with _locked(file):
        if not _is_complete(file, entry):
            _fetch(entry, file, progress)
    return file


def _fetch(entry: Weights, file: Path, progress: Progress | None) -> None:
    if entry.member is None:
        _download(entry, file, entry.size, entry.sha256, progress)
        return
    archive = file.with_name(entry.file)
    with _locked(archive):
        if not archive.is_file():
            _download(entry, archive, None, None, progress)
    extract(archive, entry.member, file)
    try:
        sha256 = _check(file, entry.size, entry.sha256 or cache.recorded(file), str(archive))
    except ValueError:
        file.unlink()
        raise
    cache.record(file, sha256)


def _download(
    entry: Weights, file: Path, size: int | None, sha256: str | None, progress: Progress | None
) -> None:
    """Download from the first address whose content has the right size and checksum."""
    problems = []
    for number, url in enumerate(entry.urls):
        part = file.with_name(f"{file.name}.part{number}")
        try:
            download(url, part, size, progress)
            found = _check(part, size, sha256 or cache.recorded(file), url)
        except DownloadError as error:
            problems.append(str(error))
        except ValueError as error:
            part.unlink()
            problems.append(str(error))
        else:
            cache.record(file, found)
            part.replace(file)
            return
    raise DownloadError(f"{entry.name} cannot be downloaded: {'; '.join(problems)}")


def _is_complete(file: Path, entry: Weights) -> bool:
    """Return whether the file exists; check one that was not checked when it was written."""
    if not file.is_file():
        return False
    if cache.recorded(file) is None:
        cache.record(file, _check(file, entry.size, entry.sha256, str(file)))
    return True


def _check(file: Path, size: int | None, sha256: str | None, source: str) -> str:
    """Return the checksum of a file of the expected size and checksum, where these are known."""
    found = file.stat().st_size
    if size is not None and found != size:
        raise ValueError(f"{source}: the file must have {size} bytes, got {found}")
    got = cache.sha256_of(file)
    if sha256 is not None and got != sha256:
        raise ValueError(f"{source}: the sha256 of the file must be {sha256}, got {got}")
    return got


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Run the block in one process at a time.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        from filelock import FileLock
    except ImportError as error:
        raise ImportError("downloads need filelock: pip install 'aurel-au[weights]'") from error
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(
            f"the folder of weights must be one that can be written, got {file.parent} "
            f"({error.strerror}); AUREL_WEIGHTS chooses another"
        ) from error
    try:
        yield
    finally:
        lock.release()
