"""The download of one address into one file, resumed after an interruption."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aurel.weights.web_page import confirmed_url, title

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int | None], None]
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a byte
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
LARGEST = 8 << 30  # bytes; more than any file of the registry
_CHUNK = 1 << 16  # a cut loses one at most
_PAGE = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OSError):
    """A file that could not be downloaded."""


class _Passing(Exception):
    """A fault that another attempt may not meet."""


def download(
    url: str, part: Path, size: int | None = None, progress: Progress | None = None
) -> None:
    """Download `url` into the file `part`; continue where an earlier attempt was cut.

    The validator of the content (ETag or Last-Modified) is kept beside `part`, so that a
    continuation is of the same content; a server that gives none, or ignores ranges, sends the
    whole file again. Proxies are those of the environment.

    Args:
        url: http or https; redirections and Google Drive's page for large files are followed.
        part: the file; it may hold the beginning of the content.
        size: expected number of bytes; None where it is not known.
        progress: called with the number of bytes that are complete, and of all or None.

    Raises:
        DownloadError: the server has no such file, sends a web page or too many bytes, or all
            attempts failed; the message names the address.
        OSError: the file cannot be written, such as on a full disk.
    """
    requests = _requests()
    passing = (
        _Passing,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    with requests.Session() as session:
        for attempt in range(ATTEMPTS):
            try:
                _attempt(session, url, part, size, progress)
                return
            except passing as error:
                reason = _reason(error)
            except requests.RequestException as error:
                raise DownloadError(f"{url}: {error}") from error
            if attempt + 1 < ATTEMPTS:
                time.sleep(PAUSE * 2**attempt)
    raise DownloadError(f"{url}: {reason} ({ATTEMPTS} attempts)")


def _attempt(
    session: requests.Session, url: str, part: Path, size: int | None, progress: Progress | None
) -> None:
    done = part.stat().st_size if part.is_file() else 0
    validator = _validator_file(part)
    headers = {"Accept-Encoding": "identity"}
    if done and validator.is_file():
        headers |= {"Range": f"bytes={done}-", "If-Range": validator.read_text()}
    with _open_file(session, url, headers) as response:
        if response.status_code == 416:  # the part is not the beginning of this content
            part.unlink()
            raise _Passing("the server cannot continue the file")
        start = _start(response, done)
        total = _total(response, start)
        _check_total(url, total, size)
        _check_space(part, start, total)
        _keep_validator(response, validator)
        with _named_when_full(part), part.open("r+b" if start else "wb") as file:
            if start:
                file.seek(start)
                file.truncate()
            for chunk in response.iter_content(_CHUNK):
                start += len(chunk)
                _check_total(url, start, size, at_least=True)
                file.write(chunk)
                if progress is not None:
                    progress(start, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and start != total:
        raise _Passing(f"cut after {start} of {total} bytes")
    _check_total(url, start, size)
    validator.unlink(missing_ok=True)


def _open_file(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """Return the open response of the file, behind Google Drive's page for large files."""
    response = _request(session, url, headers)
    if not _is_page(response):
        return response
    with response:
        text = response.raw.read(_PAGE, decode_content=True).decode(errors="replace")
        if response.status_code == 206:  # a piece of a page
            with _request(session, url, {}) as whole:
                text = whole.raw.read(_PAGE, decode_content=True).decode(errors="replace")
        link = confirmed_url(text, response.url)
    if link is not None:
        response = _request(session, link, headers)
        if not _is_page(response):
            return response
        with response:
            text = response.raw.read(_PAGE, decode_content=True).decode(errors="replace")
    named = f" ({title(text)})" if title(text) else ""
    raise DownloadError(f"{url}: the server sent a web page{named} instead of a file")


def _request(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    status = response.status_code
    if status in (200, 206, 416):
        return response
    response.close()
    message = f"status {status} {response.reason}".rstrip()
    if status in _PASSING:
        raise _Passing(message)
    raise DownloadError(f"{url}: {message}")


def _is_page(response: requests.Response) -> bool:
    kind = response.headers.get("Content-Type", "").lower()
    return response.status_code != 416 and "text/html" in kind


def _start(response: requests.Response, done: int) -> int:
    """Return the position of the first byte of the response: `done`, or 0 for the whole file."""
    if response.status_code != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != done:
        raise _Passing("the server sent another range than was asked for")
    return done


def _total(response: requests.Response, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else start + int(length)


def _check_total(url: str, total: int | None, size: int | None, at_least: bool = False) -> None:
    """Raise where the bytes, all or those so far, do not fit the expected size or the limit."""
    if total is None:
        return
    if total > (size or LARGEST) or (size is not None and total != size and not at_least):
        expected = f"{size} bytes" if size is not None else f"at most {LARGEST} bytes"
        raise DownloadError(f"{url}: the file must have {expected}, got {total}")


def _check_space(part: Path, start: int, total: int | None) -> None:
    missing, free = (total or 0) - start, shutil.disk_usage(part.parent).free
    if missing > free:
        raise OSError(
            errno.ENOSPC,
            f"{part.parent} must have {missing} bytes of free space (AUREL_WEIGHTS chooses another "
            f"folder), got {free}",
        )


@contextmanager
def _named_when_full(part: Path) -> Iterator[None]:
    """Run the block; an error of a full disk names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(errno.ENOSPC, f"no space is left in {part.parent}") from error


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _keep_validator(response: requests.Response, file: Path) -> None:
    headers: Any = response.headers
    etag = headers.get("ETag", "")
    value = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    if value:
        file.write_text(value)
    else:
        file.unlink(missing_ok=True)


def _requests() -> ModuleType:
    try:
        import requests
    except ImportError as error:
        raise ImportError("downloads need requests: pip install 'aurel-au[weights]'") from error
    return requests


def _reason(error: Exception) -> str:
    if isinstance(error, _requests().Timeout):
        return "no answer in time"
    return str(error) if isinstance(error, _Passing) else f"the connection failed: {error}"
