"""Units of work: inputs that a process finishes together, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Protocol, TypeVar

from aurel.vision.file_names import shown
from aurel.vision.frame import InputError, NotMediaError
from aurel.vision.inputs import FoundFile, is_photo
from aurel.vision.manifest import Outcome, State, Status, file_state

T = TypeVar("T")


class Task(Protocol):
    """An input of a unit."""

    @property
    def name(self) -> str:
        """Relative path of the results, without suffix."""

    @property
    def input(self) -> str:
        """Name of the input in the manifest."""

    @property
    def must_be_media(self) -> bool:
        """Whether it is an error if the input has no pictures."""

    def state(self) -> State | None:
        """Return the state of its files, or None if they cannot be read."""


@dataclass(frozen=True)
class MediaTask:
    """A photograph or a video.

    Args:
        file: the input.
        name: relative path of the results, without suffix.
        photo: whether its content is a photograph.
    """

    file: FoundFile
    name: str
    photo: bool

    @property
    def input(self) -> str:
        """Path of the file as `shown` writes it."""
        return shown(self.file.path)

    @property
    def must_be_media(self) -> bool:
        """Whether it is an error if the file is neither a photograph nor a video."""
        return self.file.must_be_media

    def state(self) -> State | None:
        """Return the state of the file, or None if it cannot be read."""
        return file_state(self.file.path)


def media_units(
    files: Iterable[tuple[FoundFile, str]], photos: int
) -> Iterator[tuple[MediaTask, ...]]:
    """Yield the units of work: a video, or up to `photos` photographs in a row.

    Args:
        files: inputs and the names of their results.
        photos: most photographs of a unit.
    """
    waiting: list[MediaTask] = []
    for file, name in files:
        try:
            photo = is_photo(file.path)
        except InputError:
            photo = False  # reading it as a video reports the error
        if not photo:
            yield (MediaTask(file, name, photo),)
            continue
        waiting.append(MediaTask(file, name, photo))
        if len(waiting) == photos:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


def guarded(task: Task, settings: str, run: Callable[[Outcome], Outcome]) -> Outcome:
    """Return what `run` makes of the outcome "done" of a task; errors become its reason."""
    outcome = Outcome(task.input, "done", task.name, settings=settings)
    state = task.state()
    if state is not None:  # else reading the file reports the error
        outcome = replace(outcome, size=state[0], modified=state[1])
    try:
        return run(outcome)
    except NotMediaError as error:
        status: Status = "failed" if task.must_be_media else "skipped"
        return replace(outcome, status=status, reason=str(error))
    except InputError as error:
        return replace(outcome, status="failed", reason=str(error))
    except OSError as error:
        reason = f"{outcome.input}: {error.strerror or error}"
        if error.filename is not None:
            reason += f": {shown(error.filename)}"
        return replace(outcome, status="failed", reason=reason)
    except Exception as error:
        reason = f"{outcome.input}: {type(error).__name__}: {error}"
        return replace(outcome, status="failed", reason=" ".join(reason.split()))


def up_to(most: int, items: Iterable[T]) -> tuple[int, Iterator[T]]:
    """Return the number of items, or `most` if there are more, and an iterator over all of them."""
    iterator = iter(items)
    first = list(islice(iterator, most))
    return len(first), chain(first, iterator)
