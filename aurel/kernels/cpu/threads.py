"""Work on ranges, shared among as many threads as torch uses.

Where torch uses GNU's OpenMP library, kernels run in the same team of threads: after an operator of
torch, its threads wait busily for a while, and others would have to share the processor with them.
Elsewhere, and in a forked process, which does not have that team, threads of Python do the work in
parallel, since kernels release the interpreter lock. (The thread pools of numba abort
the process when two Python threads call them at once, or after a fork.)
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

# Number of elementary operations, some 5 microseconds, from which another thread pays off.
_WORTH = 15_000
_SHARES = 8  # ranges a thread, so that one that started late takes fewer


class _Job:
    """Ranges of one call; each thread takes the next one until none is left."""

    def __init__(self, kernel: Callable[..., None], ends: list[int], args: tuple[Any, ...]) -> None:
        self.kernel, self.ends, self.args = kernel, ends, args
        self.next_range = itertools.count()
        self.results: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(self) -> None:
        """Compute ranges until none is left."""
        while (i := next(self.next_range)) < len(self.ends) - 1:
            try:
                self.kernel(0, 0, 1, 1, self.ends[i], self.ends[i + 1], *self.args)
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
        """Compute `job` in this thread and `threads` - 1 others."""
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


@cache
def _team(process: int) -> tuple[int, int]:
    """Return the addresses of two functions of GNU OpenMP if it serves torch in a process, or 0, 0.

    They are ``GOMP_parallel`` and ``omp_get_thread_num``. A forked child has none of its parent's
    threads, so that its calls would wait forever.
    """
    if process != _FIRST_PROCESS:
        return 0, 0
    try:
        with open("/proc/self/maps") as maps:
            (path,) = set(re.findall(r"/\S*libgomp\S*", maps.read()))
        library = ctypes.CDLL(path)
        return _address(library.GOMP_parallel), _address(library.omp_get_thread_num)
    except (OSError, ValueError, AttributeError):  # another system, or none or several libraries
        return 0, 0


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


_FIRST_PROCESS = os.getpid()
_pool = cache(lambda process: _Pool())


def run(kernel: Callable[..., None], count: int, work: int, *args: Any) -> None:
    """Call a kernel's ``function(start, stop, *args)`` over ranges that make up ``0..count``.

    Which thread computes a range changes no result: a function writes to each address from one
    range.

    Args:
        kernel: the function, compiled by `ranges.ranged`.
        count: number of independent parts.
        work: elementary operations in all of them, roughly.
        args: further arguments of the function.

    Raises:
        MemoryError: there was not enough memory for a scratch array of the function.
    """
    threads = min(torch.get_num_threads(), count, work // _WORTH)
    if threads <= 1:
        kernel(0, 0, 1, 1, 0, count, *args)
        return
    ranges = min(count, _SHARES * threads)
    process = os.getpid()
    parallel, number = _team(process)
    if parallel:
        kernel(parallel, number, threads, ranges, 0, count, *args)
        return
    job = _Job(kernel, [count * i // ranges for i in range(ranges + 1)], args)
    _pool(process).work(job, threads)
    job.finish()
