"""Downloads from a local server: whole, cut, slow, redirected, confirmed, refused."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.file_server import FileServer, fails, in_turn, redirects, sends, serving

from aurel import weights
from aurel.weights import fetch, transfer
from aurel.weights.entry import License, Weights
from aurel.weights.transfer import DownloadError

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MIT = License("mit", "MIT", "https://example.org", agreement=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache; retries do not wait."""
    monkeypatch.setenv("AUREL_WEIGHTS", str(tmp_path))
    for variable in ("AUREL_OFFLINE", "HF_HUB_OFFLINE", "AUREL_AGREE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", (1.0, 0.3))
    return tmp_path


@pytest.fixture
def entry(server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that registers the weights "net" with other values than the defaults."""

    def register(**values: Any) -> Weights:
        defaults = {"file": "net.bin", "urls": (f"{server.url}/net.bin",), "source": "example.org"}
        made = Weights(name="net", **{"license": MIT, **defaults, **values})
        monkeypatch.setattr(fetch, "weights_info", lambda name: made)
        return made

    register()
    return register


def left_over(folder: Path) -> set[str]:
    """Return the files that are no result, record or lock."""
    kept = ("net.bin", "net.bin.sha256", "licenses")
    return {file.name for file in folder.iterdir() if not file.name.endswith(".lock")} - {*kept}


def test_a_file_is_downloaded_once(server: FileServer, folder: Path, entry: Any) -> None:
    entry(size=len(CONTENT), sha256=SHA256)
    server.answers["/net.bin"] = sends(CONTENT)
    assert weights.find("net") is None
    seen: list[tuple[int, int | None]] = []
    file = weights.get("net", progress=lambda done, total: seen.append((done, total)))
    assert file == weights.path("net") == weights.find("net") == folder / "net.bin"
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert weights.get("net") == file and len(server.requests) == 1
    assert left_over(folder) == set()


def test_a_cut_transfer_is_continued(server: FileServer, folder: Path, entry: Any) -> None:
    server.answers["/net.bin"] = in_turn(sends(CONTENT, cut=100_000), sends(CONTENT))
    assert weights.get("net").read_bytes() == CONTENT
    first, second = (headers for _, headers in server.requests)
    assert "Range" not in first
    assert re.fullmatch(r"bytes=[1-9]\d{4}-", second["Range"]) and second["If-Range"] == '"1"'
    assert left_over(folder) == set()


def test_a_later_call_continues_too(server: FileServer, folder: Path, entry: Any) -> None:
    server.answers["/net.bin"] = in_turn(sends(CONTENT, cut=100_000), fails(404))
    with pytest.raises(DownloadError, match="404"):
        weights.get("net")
    server.answers["/net.bin"] = sends(CONTENT)
    assert weights.get("net").read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=[1-9]\d{4}-", server.requests[-1][1]["Range"])


def test_a_file_that_changed_meanwhile_is_sent_anew(server: FileServer, entry: Any) -> None:
    other = CONTENT[::-1]
    server.answers["/net.bin"] = in_turn(sends(CONTENT, cut=100_000), sends(other, etag='"2"'))
    assert weights.get("net").read_bytes() == other


@pytest.mark.parametrize("options", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}])
def test_a_server_that_cannot_continue_sends_the_whole_file(
    server: FileServer, entry: Any, options: dict[str, Any]
) -> None:
    cut = sends(CONTENT, cut=100_000, **options)
    server.answers["/net.bin"] = in_turn(cut, sends(CONTENT, **options))
    assert weights.get("net").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(
    server: FileServer, folder: Path, entry: Any
) -> None:
    (folder / "net.bin.part0").write_bytes(CONTENT + b"more")
    (folder / "net.bin.part0.validator").write_text('"1"')
    server.answers["/net.bin"] = in_turn(fails(416), sends(CONTENT))
    assert weights.get("net").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(server: FileServer, folder: Path, entry: Any) -> None:
    entry(sha256="0" * 64)
    server.answers["/net.bin"] = sends(CONTENT)
    with pytest.raises(DownloadError, match=f"sha256 of the file must be {'0' * 64}, got {SHA256}"):
        weights.get("net")
    assert weights.find("net") is None and left_over(folder) == set()


def test_the_first_download_records_the_checksum(
    server: FileServer, folder: Path, entry: Any
) -> None:
    server.answers["/net.bin"] = sends(CONTENT)
    weights.get("net").unlink()
    server.answers["/net.bin"] = sends(CONTENT[::-1])
    with pytest.raises(DownloadError, match=SHA256):
        weights.get("net")
    server.answers["/net.bin"] = sends(CONTENT)
    assert weights.get("net").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
def test_a_wrong_size_is_refused(server: FileServer, entry: Any, content: bytes) -> None:
    entry(size=len(CONTENT))
    server.answers["/net.bin"] = sends(content)
    with pytest.raises(DownloadError, match=f"{len(CONTENT)} bytes, got {len(content)}"):
        weights.get("net")


def test_a_size_beyond_all_files_is_refused(
    server: FileServer, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "LARGEST", 1000)
    server.answers["/net.bin"] = sends(CONTENT)
    with pytest.raises(DownloadError, match="at most 1000 bytes"):
        weights.get("net")


def test_faults_that_pass(server: FileServer, entry: Any) -> None:
    slow = sends(CONTENT, pause=0.5)
    server.answers["/net.bin"] = in_turn(fails(500), fails(503), slow, sends(CONTENT))
    assert weights.get("net").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(fails(503), "503"), (sends(CONTENT, pause=0.6), "(no answer in time|timed out)")],
)
def test_faults_that_do_not_pass(
    server: FileServer, entry: Any, answer: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.answers["/net.bin"] = answer
    with pytest.raises(DownloadError, match=rf"{server.url}/net.bin: .*{reason}.*\(2 attempts\)"):
        weights.get("net")
    assert len(server.requests) == 2


def test_a_missing_file_is_one_error_with_its_address(server: FileServer, entry: Any) -> None:
    with pytest.raises(DownloadError, match=f"net cannot .*{server.url}/net.bin: status 404"):
        weights.get("net")
    assert len(server.requests) == 1


def test_mirrors_are_tried_in_turn(server: FileServer, folder: Path, entry: Any) -> None:
    urls = tuple(f"{server.url}/{name}" for name in ("gone", "wrong", "net.bin"))
    entry(urls=urls, sha256=SHA256)
    server.answers |= {"/wrong": sends(CONTENT[::-1]), "/net.bin": sends(CONTENT)}
    assert weights.get("net").read_bytes() == CONTENT
    del server.answers["/net.bin"]
    weights.path("net").unlink()
    with pytest.raises(DownloadError) as raised:
        weights.get("net")
    assert all(url in str(raised.value) for url in urls)
    assert left_over(folder) == set()


def test_a_redirection_is_followed(server: FileServer, entry: Any) -> None:
    server.answers |= {"/net.bin": redirects("/elsewhere"), "/elsewhere": sends(CONTENT)}
    assert weights.get("net").read_bytes() == CONTENT


PAGE = b"""<!DOCTYPE html><html><head><title>Virus scan warning</title></head><body>
<form id="download-form" action="/download" method="get">
<input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="A1"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="x&amp;y"></form></body></html>"""


@pytest.mark.parametrize(
    "page", [PAGE, b"<html><a href='/download?confirm=t&amp;id=A1&amp;uuid=x%26y'>go</a></html>"]
)
def test_a_page_that_asks_to_confirm_is_confirmed(
    server: FileServer, entry: Any, page: bytes
) -> None:
    server.answers["/net.bin"] = sends(page, kind="text/html; charset=utf-8")
    server.answers["/download"] = in_turn(sends(CONTENT, cut=100_000), sends(CONTENT))
    assert weights.get("net").read_bytes() == CONTENT
    paths = [path for path, _ in server.requests if path.startswith("/download")]
    assert len(paths) == 2 and all("confirm=t" in path and "uuid=x%26y" in path for path in paths)


@pytest.mark.parametrize("behind", [None, b"<html><title>Too many users</title></html>"])
def test_another_page_is_an_error(server: FileServer, entry: Any, behind: bytes | None) -> None:
    page = b"<html><title>Too many users</title></html>" if behind is None else PAGE
    server.answers["/net.bin"] = sends(page, kind="text/html")
    server.answers["/download"] = sends(behind or b"", kind="text/html")
    with pytest.raises(DownloadError, match=r"a web page \(Too many users\) instead of a file"):
        weights.get("net")


def test_a_full_disk_is_one_clear_error(
    server: FileServer, folder: Path, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/net.bin"] = sends(CONTENT, etag=None)
    (folder / "net.bin.part0").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"no space is left in {folder}") as raised:
        weights.get("net")
    assert raised.value.errno == errno.ENOSPC
    (folder / "net.bin.part0").unlink()
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="300000 bytes of free space .*AUREL_WEIGHTS.* got 1000"):
        weights.get("net")


def test_a_cache_that_cannot_be_written(
    server: FileServer, folder: Path, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("AUREL_WEIGHTS", str(folder / "file" / "cache"))
    with pytest.raises(OSError, match="must be one that can be written.*AUREL_WEIGHTS"):
        weights.get("net")
    assert server.requests == []


@pytest.mark.parametrize("variable", ["AUREL_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(
    server: FileServer, folder: Path, entry: Any, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(FileNotFoundError, match="net.bin must exist in offline mode.*example.org"):
        weights.get("net")
    (folder / "net.bin").write_bytes(CONTENT)
    assert weights.get("net").read_bytes() == CONTENT
    assert server.requests == []


def test_a_file_put_there_by_hand_is_checked(folder: Path, entry: Any) -> None:
    entry(sha256=SHA256)
    (folder / "net.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"net.bin: the sha256 of the file must be {SHA256}"):
        weights.get("net")
    (folder / "net.bin").write_bytes(CONTENT)
    assert weights.get("net") == folder / "net.bin"


def zipped(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def test_a_member_of_an_archive(
    server: FileServer, folder: Path, entry: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = tmp_path_factory.mktemp("made") / "archive.zip"
    members = {"folder/net_fold1.pth": CONTENT, "folder/net_fold2.pth": b"2", "readme": b""}
    server.answers["/net.bin"] = sends(zipped(made, members))
    entry(file="nets.zip", member="*fold1.pth", sha256=SHA256, size=len(CONTENT))
    file = weights.get("net")
    assert file == folder / "net.pth" and file.read_bytes() == CONTENT
    file.unlink()
    assert weights.get("net").read_bytes() == CONTENT and len(server.requests) == 1
    file.unlink()
    entry(file="nets.zip", member="*fold3.pth")
    with pytest.raises(ValueError, match="got 0 of these: folder/net_fold1.pth, folder/net_fold2"):
        weights.get("net")
    entry(file="nets.zip", member="*fold2.pth", sha256=SHA256)
    with pytest.raises(ValueError, match="sha256"):
        weights.get("net")
    assert not file.exists()


def test_a_damaged_archive_is_an_error(server: FileServer, entry: Any) -> None:
    entry(file="nets.zip", member="*")
    server.answers["/net.bin"] = sends(b"no archive")
    with pytest.raises(ValueError, match="nets.zip must be a zip archive"):
        weights.get("net")


SCRIPT = """
import sys
from aurel.weights import fetch
from aurel.weights.entry import License, Weights
entry = Weights(name="net", file="net.bin", urls=(sys.argv[1],), source="",
                license=License("mit", "MIT", "", False))
fetch.weights_info = lambda name: entry
print(len(fetch.get("net").read_bytes()))
"""


def test_two_processes_download_once(server: FileServer, folder: Path, entry: Any) -> None:
    server.answers["/net.bin"] = sends(CONTENT, pause=0.2)
    command = [sys.executable, "-c", SCRIPT, f"{server.url}/net.bin"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in running] == [b"300000"] * 2
    assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_used(
    server: FileServer, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    entry(urls=("http://weights.invalid/net.bin",))
    server.answers["http://weights.invalid/net.bin"] = sends(CONTENT)
    assert weights.get("net").read_bytes() == CONTENT


def test_the_folder_of_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AUREL_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = weights.path("openface3")
    assert re.search(r"aurel.*weights.OpenFace3_MTL_backbone.pth$", str(found))
