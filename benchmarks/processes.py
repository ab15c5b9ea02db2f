"""Run commands with a time limit, log their output, and stop all processes that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TAIL = 25  # lines shown of a command that failed
GRACE = 3.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Args:
        name: name of the command.
        status: exit status, or None if it was stopped at a limit.
        seconds: running time.
        tail: its last lines of output.
    """

    name: str
    status: int | None
    seconds: float
    tail: str

    def __str__(self) -> str:
        ended = "stopped at its limit" if self.status is None else f"status {self.status}"
        return f"{self.name}: {ended}, {self.seconds:.0f} s"


class Running:
    """A command in its own process group, whose lines are written to a shared log at once."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: dict[str, str] | None
    ) -> None:
        self.name, self.start = name, time.monotonic()
        self.lines: list[str] = []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        arguments = (self.process.stdout, log)
        self.reader = threading.Thread(target=self._read, args=arguments, daemon=True)
        self.reader.start()

    def _read(self, stream: IO[str], log: Path) -> None:
        with log.open("a", buffering=1) as file:
            for line in stream:
                file.write(f"[{self.name}] {line}")
                self.lines = [*self.lines[1 - TAIL :], line]

    def stop(self) -> None:
        """Stop the whole process group."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()

    def finished(self, stopped: bool) -> Outcome:
        """Return the outcome of a command that has ended or was stopped."""
        self.reader.join(GRACE)
        status = None if stopped else self.process.returncode
        return Outcome(self.name, status, time.monotonic() - self.start, "".join(self.lines))


def run(
    commands: dict[str, Sequence[str]],
    log: Path,
    seconds: float,
    environment: dict[str, str] | None = None,
    stalled: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Run commands in parallel and return their outcomes, in the order of their ends.

    Args:
        commands: the commands by name.
        log: file for their lines, each with the name of its command.
        seconds: limit of each command; it is then killed with its children.
        environment: additional variables.
        stalled: called repeatedly; if it returns True, all commands are killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    running = [Running(name, command, log, environment) for name, command in commands.items()]
    outcomes = []
    try:
        while running:
            over = time.monotonic() > deadline or stalled()
            for each in list(running):
                ended = each.process.poll() is not None
                if ended or over:
                    each.stop()  # also children that outlive an ended process
                    running.remove(each)
                    outcomes.append(each.finished(stopped=not ended))
            time.sleep(0.1)
    finally:
        for each in running:
            each.stop()
    return outcomes
