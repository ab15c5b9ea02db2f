"""Work on ranges, shared among as many threads as torch uses.

The kernels release the interpreter lock, so Python's own threads run them side by side. (The thread
pools of numba abort the process when two Python threads call them at once, or after a fork.)
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
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


class _Pool:
    """Threads that wait for jobs; they end with the process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def submit(self, job: _Job, helpers: int) -> None:
        """Let up to `helpers` threads work on `job`."""
        if self.size < helpers:
            with self.lock:
                while self.size < helpers:
                    threading.Thread(target=self._serve, daemon=True, name="aurel").start()
                    self.size += 1
        for _ in range(helpers):
            self.jobs.put(job)

    def _serve(self) -> None:
        while True:
            self.jobs.get().work()


_pool = _Pool()


def _renew_pool() -> None:
    global _pool
    _pool = _Pool()  # a forked child has none of its parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_pool)


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
    _pool.submit(job, threads - 1)
    job.work()
    for error in [job.results.get() for _ in range(ranges)]:
        if error is not None:
            raise error
