"""Several commands at a time, each in a process of its own, that Ctrl-C stops together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from aurel.cli.errors import BAD_INPUT

_POLL_S = 0.1


@dataclass
class Job:
    """Commands that run one after the other, until one of them fails.

    Args:
        label: name of the job.
        steps: functions that return the command line of each process when its turn comes.
        log: file that receives the output; None for that of this process.
        code: exit code of the last command; None before the end.
    """

    label: str
    steps: Sequence[Callable[[], list[str]]]
    log: Path | None = None
    code: int | None = None
    _next: int = field(default=0, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def advance(self) -> bool:
        """Start the next command if none runs; return whether the job goes on."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return True
            self._process, self.code = None, code
            if code != 0:
                return False
        if self._next == len(self.steps):
            return False
        command = self.steps[self._next]()
        self._next += 1
        self._process = start(command, self.log)
        return True

    def interrupt(self) -> None:
        """Send Ctrl-C to the running command and its children."""
        if self._process is not None and self._process.poll() is None:
            _interrupt(self._process)

    def wait(self) -> None:
        """Wait for the running command to end."""
        if self._process is not None:
            self.code = self._process.wait()


def run_jobs(
    jobs: Sequence[Job], parallel: int, ended: Callable[[Job], None] = lambda job: None
) -> None:
    """Run jobs, at most `parallel` at a time; after bad input (exit code 2) no further job starts.

    Args:
        jobs: the jobs, in the order in which they start.
        parallel: number of jobs at a time.
        ended: called with each job at its end.

    Raises:
        KeyboardInterrupt: Ctrl-C, or a request to terminate; all processes have ended.
    """
    waiting, running = list(jobs), list[Job]()
    with _terminated_as_interrupt():
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    running.append(waiting.pop(0))
                for job in list(running):
                    if not job.advance():
                        running.remove(job)
                        ended(job)
                        if job.code == BAD_INPUT:
                            waiting.clear()
                if running:
                    time.sleep(_POLL_S)
        except BaseException:
            for job in running:
                job.interrupt()
            for job in running:
                job.wait()
            raise


def start(command: list[str], log: Path | None) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, which receives no Ctrl-C from the terminal."""
    if log is None:
        return subprocess.Popen(command, start_new_session=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
        )


def aurel_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a process that runs `aurel`."""
    return [sys.executable, "-m", "aurel.cli.main", *arguments]


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """Let a request to terminate (SIGTERM) raise KeyboardInterrupt, so that no child is left."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, handler)
    if before[signal.SIGINT] is signal.SIG_IGN:  # behind nohup; children would ignore it, too
        signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
