"""A local HTTP server that serves bytes, with the faults that a test asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answer GET by the function that the server has for the path."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        files: FileServer = self.server.files  # type: ignore[attr-defined]
        files.requests.append((self.path, dict(self.headers)))
        answer = files.answers.get(self.path.split("?")[0])
        if answer is None:
            self.send_error(404)
            return
        answer(self)

    def do_HEAD(self) -> None:
        self.wfile = BytesIO()
        self.do_GET()
        head, blank, _ = self.wfile.getvalue().partition(b"\r\n\r\n")
        self.connection.sendall(head + blank)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class FileServer:
    """The answers of a server by path, and the requests that it got."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files = FileServer(f"http://127.0.0.1:{server.server_port}")
    server.files = files  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(
    content: bytes,
    *,
    etag: str | None = '"1"',
    ranges: bool = True,
    cut: int | None = None,
    pause: float = 0.0,
    kind: str = "application/octet-stream",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return an answer that sends `content`.

    Args:
        content: the file.
        etag: its validator; None for none.
        ranges: honor Range and If-Range.
        cut: close the connection after this many bytes.
        pause: seconds before the content.
        kind: its Content-Type.
        headers: further headers.
    """

    def answer(handler: Handler) -> None:
        start = 0
        asked = handler.headers.get("Range")
        if ranges and asked and handler.headers.get("If-Range") in (None, etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) - start))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        if etag:
            handler.send_header("ETag", etag)
        if start:
            end = len(content)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        handler.end_headers()
        time.sleep(pause)
        with suppress(OSError):  # the client has gone
            handler.wfile.write(content[start:cut])

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Return an answer that is the first, then the second, ..., and the last from then on."""
    calls = iter(answers[:-1])
    return lambda handler: next(calls, answers[-1])(handler)


def fails(status: int) -> Answer:
    """Return an answer with an error status."""
    return lambda handler: handler.send_error(status)


def redirects(to: str) -> Answer:
    """Return an answer that redirects to another path."""

    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
