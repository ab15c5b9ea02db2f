"""Run units of work in processes, of which any may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext
from typing import Any, TypeAlias, TypeVar

from aurel.vision.manifest import Outcome
from aurel.vision.units import Task

T = TypeVar("T", bound=Task)

Run: TypeAlias = Callable[[tuple[T, ...]], list[Outcome]]
Make: TypeAlias = Callable[[], Run[T]]
"""Returns the function that finishes a unit; processes call it once, so it can be pickled."""

DIED = "its process was killed, or had no memory left"


def run_in_processes(
    make: Make[T], units: Iterable[tuple[T, ...]], count: int
) -> Iterator[list[Outcome]]:
    """Yield the outcomes of the units in the order in which they end.

    At most `count` units are in progress, and each process has one of them. If a process dies, its
    inputs are tried again one by one; a single input whose process dies has failed.

    Args:
        make: see `Make`.
        units: units of work.
        count: number of processes.
    """
    context = _context()
    # The end of a pipe, not an event: who is killed while it waits for an event blocks the others.
    end_of_run, open_during_run = context.Pipe(duplex=False)
    pending = iter(units)
    again: list[tuple[T, ...]] = []
    idle: list[ProcessPoolExecutor] = []
    busy: dict[Future[list[Outcome]], tuple[tuple[T, ...], ProcessPoolExecutor]] = {}

    def started() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, _start, (make, end_of_run))

    try:
        while True:
            while len(busy) < count and (unit := again.pop() if again else next(pending, None)):
                process = idle.pop() if idle else started()
                busy[process.submit(_finish, unit)] = unit, process
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                unit, process = busy.pop(future)
                try:
                    outcomes = future.result()
                except BrokenProcessPool:
                    process.shutdown(wait=False)
                    if len(unit) > 1:
                        again += [(task,) for task in reversed(unit)]
                        continue
                    outcomes = [lost(unit[0])]
                else:
                    idle.append(process)
                yield outcomes
    finally:
        open_during_run.close()
        for process in [*idle, *(process for _, process in busy.values())]:
            process.shutdown(wait=False, cancel_futures=True)


def _context() -> BaseContext:
    """Return the way to start processes: forked from one that has loaded the libraries."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aurel.vision.predict_files"])
    return context


def lost(task: Task) -> Outcome:
    """Return the outcome of an input whose process died."""
    reason = f"{task.input} cannot be finished: {DIED}"
    return Outcome(task.input, "failed", task.name, reason=reason)


_prepared: list[Callable[[], Run[Any]]] = []


def _finish(unit: tuple[Any, ...]) -> list[Outcome]:
    return _prepared[0]()(unit)


def _start(make: Make[Any], end_of_run: Connection) -> None:
    """Prepare this process; it ends when the run stops, also if the parent was killed."""
    _prepared.append(cache(make))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel, end_of_run])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
