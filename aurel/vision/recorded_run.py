"""A run whose outcomes are in the manifest of its folder, so that a stopped run can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from aurel.vision.manifest import KEPT, Manifest, Outcome

MANIFEST = "manifest.csv"


def check_settings(manifest: Manifest, settings: str) -> None:
    """Raise ValueError if there are results of other settings, with which a run cannot go on."""
    for outcome in manifest.outcomes.values():
        if outcome.status in KEPT and outcome.settings != settings:
            raise ValueError(
                f"the settings must be those of the results in {manifest.path.parent}, which "
                f"differ from those of {outcome.input}; --overwrite replaces them"
            )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a lock on the folder, which the system releases if the process dies.

    Raises:
        ValueError: another run holds it.
    """
    from filelock import FileLock, Timeout  # a dependency of PyTorch

    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{out} is in use by another run") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (out / ".lock").unlink()
        lock.release()


@contextmanager
def without_partial(folders: Sequence[Path]) -> Iterator[None]:
    """Remove what `aurel.files.atomic_path` of a killed process left, before and after the block.

    A killed process can leave files only while they are hidden.
    """
    _remove_partial(folders)
    try:
        yield
    finally:
        _remove_partial(folders)


def record(
    manifest: Manifest, outcomes: Iterable[list[Outcome]], on_outcome: Callable[[Outcome], None]
) -> list[Outcome]:
    """Return the outcomes of a run, each of which is in the manifest before the next unit ends.

    Args:
        manifest: the record of the folder.
        outcomes: those of each unit, when its results are complete.
        on_outcome: called with each outcome.
    """
    recorded: list[Outcome] = []
    for finished in outcomes:
        for outcome in finished:
            manifest.add(outcome)
            recorded.append(outcome)
            on_outcome(outcome)
    return recorded


def _remove_partial(folders: Sequence[Path]) -> None:
    for folder in folders:
        for path in folder.rglob(".*.partial.*"):
            path.unlink(missing_ok=True)
