"""A headless Chromium, driven over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 30.0


def find_chromium() -> str | None:
    """Return the program, or None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A running browser; see `running`.

    Attributes:
        handlers: a function of the parameters of each event, by its name; it may `send`.
    """

    def __init__(self, write: int, read: int) -> None:
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self._write, self._read = write, read
        self._buffer = b""
        self._last = 0

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Return the result of a method of the protocol."""
        number = self.send(method, session, **params)
        for message in self._messages():
            if message.get("method") in self.handlers:
                self.handlers[message["method"]](message["params"])
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
        raise RuntimeError(f"{method}: the browser has stopped")

    def send(self, method: str, session: str | None = None, **params: Any) -> int:
        """Call a method without waiting for its result; return the number of the call."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        content = json.dumps({**message, "sessionId": session} if session else message)
        left = memoryview(content.encode() + b"\0")
        while left:
            left = left[os.write(self._write, left) :]
        return self._last

    def _messages(self) -> Iterator[Any]:
        while True:
            text, found, rest = self._buffer.partition(b"\0")
            if found:
                self._buffer = rest
                yield json.loads(text)
            elif more := os.read(self._read, 1 << 20):
                self._buffer += more
            else:
                return


class Page:
    """A tab of the browser.

    Args:
        browser: the browser.
        url: address to open.
    """

    def __init__(self, browser: Chromium, url: str) -> None:
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method: str, **params: Any) -> Any:
        """Return the result of a method of the protocol."""
        return self._browser.call(method, self._session, **params)

    def run(self, script: str) -> Any:
        """Return the value of an expression in JavaScript, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script: str, accept: Callable[[Any], Any] = bool) -> Any:
        """Return the value of an expression as soon as it is accepted."""
        deadline = time.monotonic() + SECONDS
        while not accept(value := self.run(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} must be accepted, got {value!r}")
            time.sleep(0.02)
        return value

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in the file input of that selector."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def answer(self, reply: Callable[[str], bytes | None]) -> None:
        """Answer each request to an address with these bytes; None: from its source."""

        def paused(request: Any) -> None:
            body = reply(request["request"]["url"])
            params: dict[str, Any] = {"requestId": request["requestId"]}
            if body is None:
                self._browser.send("Fetch.continueRequest", self._session, **params)
                return
            headers = [{"name": "Access-Control-Allow-Origin", "value": "*"}]
            params |= {"responseCode": 200, "responseHeaders": headers}
            params["body"] = base64.b64encode(body).decode()
            self._browser.send("Fetch.fulfillRequest", self._session, **params)

        self._browser.handlers["Fetch.requestPaused"] = paused
        self.call("Fetch.enable")

    def drop(self, *paths: Path) -> None:
        """Drop files onto the page."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=20, y=20, data=data)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Send a mouse event: "mousePressed", "mouseMoved" or "mouseReleased"."""
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1
        )

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextmanager
def running(program: str, profile: Path, options: Sequence[str] = ()) -> Iterator[Chromium]:
    """Run the program while the context lasts.

    Args:
        program: result of `find_chromium`.
        profile: empty folder for its files.
        options: further options of the command line.
    """
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    # The browser reads from file descriptor 3 and writes to 4.
    command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    arguments = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
        *(f"--user-data-dir={profile}", "--no-first-run", *options),
    )
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", program, *arguments],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    browser = Chromium(write, read)
    try:
        yield browser
        browser.call("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        os.close(write)
        os.close(read)
