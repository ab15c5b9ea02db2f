"""Windows over a stream of unknown length, with the items before and after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from aurel.data.arguments import check_at_least

T = TypeVar("T")


def windows(items: Iterable[T], length: int, context: int) -> Iterator[tuple[list[T], int, int]]:
    """Cut a stream into pieces, and yield each piece with the items before and after it.

    Args:
        items: in order; at most `length` + 2 `context` of them are in memory.
        length: items of a piece.
        context: further items on either side, fewer at the ends of the stream.

    Yields:
        (window, start, stop): the piece is ``window[start:stop]``. The concatenated pieces are the
        stream; all but the last, which may be shorter or longer, have `length` items.

    Raises:
        ValueError: `length` is below 1.
    """
    check_at_least("length", length, 1)
    window: list[T] = []
    start = 0
    for item in items:
        window.append(item)
        if len(window) == start + length + context:
            yield window, start, start + length
            passed = max(0, start + length - context)
            window, start = window[passed:], start + length - passed
    if len(window) > start:
        yield window, start, len(window)
