"""Iterate ahead in threads, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_END: Any = object()


def ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the items, of which a thread computes up to `count` in advance."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    waiting = deque(pool.submit(next, iterator, _END) for _ in range(count))
    try:
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def mapped(
    function: Callable[[T], R], items: Iterable[T], threads: int
) -> Generator[tuple[T, R], None, None]:
    """Yield each item with the result of the function, in order, computed by several threads."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > threads:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
