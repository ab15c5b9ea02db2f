"""Work on ranges, shared among as many threads as torch uses.

The kernels release the interpreter lock, so several threads run them side by side. Where torch has
its threads from GNU's OpenMP library, kernels run in the same team: after an operator of torch, its
threads wait busily for a while, and others would have to share the processor with them. Elsewhere,
and after a fork, which that team does not survive, Python's own threads do the work. (The thread
pools of numba abort the process when two Python threads call them at once, or after a fork.)
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

import torch

# Elementary operations, which take some 30 microseconds, that are worth another thread.
_WORTH = 500_000
_SHARES = 3  # ranges a thread, so that one that started late takes fewer


class _Job:
    """Ranges of one call; whichever thread comes takes the next."""

    def __init__(self, kernel: Callable[..., None], ends: list[int], args: tuple[Any, ...]) -> None:
        self.kernel, self.ends, self.args = kernel, ends, args
        self.next_range = itertools.count()
        self.results: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(self) -> None:
        """Compute ranges until none is left."""
        while (i := next(self.next_range)) < len(self.ends) - 1:
            try:
                self.kernel(self.ends[i], self.ends[i + 1], *self.args)
            except BaseException as error:
                self.results.put(error)
            else:
                self.results.put(None)

    def finish(self) -> None:
        """Wait for the last range, and raise the first error."""
        errors = [self.results.get() for _ in range(len(self.ends) - 1)]
        for error in errors:
            if error is not None:
                raise error


class _Pool:
    """Threads of Python that wait for jobs; they end with the process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def work(self, job: _Job, threads: int) -> None:
        """Let this thread and `threads` - 1 others work on `job`."""
        if self.size < threads - 1:
            with self.lock:
                while self.size < threads - 1:
                    threading.Thread(target=self._serve, daemon=True, name="aurel").start()
                    self.size += 1
        for _ in range(threads - 1):
            self.jobs.put(job)
        job.work()

    def _serve(self) -> None:
        while True:
            self.jobs.get().work()


@ctypes.CFUNCTYPE(None, ctypes.py_object)
def _member(job: _Job) -> None:
    job.work()


class _Team:
    """The threads of GNU's OpenMP library that serve this thread's operators of torch."""

    def __init__(self, path: str) -> None:
        self.parallel = ctypes.CDLL(path).GOMP_parallel
        self.parallel.restype = None
        self.parallel.argtypes = (
            type(_member),
            ctypes.py_object,
            ctypes.c_uint,
            ctypes.c_uint,
        )

    def work(self, job: _Job, threads: int) -> None:
        """Let this thread and `threads` - 1 others work on `job`."""
        self.parallel(_member, job, threads, 0)


@cache
def _threads_of(process: int) -> _Team | _Pool:
    """Return who works in a process; a forked child has none of its parent's threads."""
    if process != _FIRST_PROCESS:
        return _Pool()
    try:
        with open("/proc/self/maps") as maps:
            paths = set(re.findall(r"/\S*libgomp\S*", maps.read()))
        return _Team(*paths)
    except (OSError, TypeError, AttributeError):  # another system, or none or several libraries
        return _Pool()


_FIRST_PROCESS = os.getpid()


def run(kernel: Callable[..., None], count: int, work: int, *args: Any) -> None:
    """Call ``kernel(start, stop, *args)`` over ranges that make up ``0..count``.

    Which thread computes a range changes no result: a kernel writes to each address from one range.

    Args:
        kernel: compiled with ``nogil=True``.
        count: number of independent parts.
        work: elementary operations in all of them, roughly.
        args: further arguments of the kernel.
    """
    threads = min(torch.get_num_threads(), count, work // _WORTH)
    if threads <= 1:
        if count > 0:
            kernel(0, count, *args)
        return
    ranges = min(count, _SHARES * threads)
    job = _Job(kernel, [count * i // ranges for i in range(ranges + 1)], args)
    _threads_of(os.getpid()).work(job, threads)
    job.finish()
