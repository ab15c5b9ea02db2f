"""Predict many files into a folder, and go on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from aurel.vision.file_names import result_names, shown
from aurel.vision.inputs import FoundFile
from aurel.vision.manifest import Manifest, Outcome
from aurel.vision.predict_files import Unit, units_of

Existing: TypeAlias = Literal["keep", "resume", "overwrite"]
"""Treatment of results in the folder: "keep" raises, "resume" goes on, "overwrite" removes them."""

RunUnits: TypeAlias = Callable[[Iterable[Unit]], Iterator[list[Outcome]]]

MANIFEST = "manifest.csv"
TABLES, ANNOTATED = "tables", "annotated"
KEPT = ("done", "incomplete")
"""Outcomes with results."""


@dataclass(frozen=True)
class Plan:
    """The work that is left in a folder.

    Args:
        manifest: the record of the folder.
        files: inputs to predict, with the names of their results.
        finished: number of inputs that an earlier run has done.
        order: all inputs of the run, as `shown` writes them.
        remove: outcomes of an earlier run whose results are replaced.
    """

    manifest: Manifest
    files: list[tuple[FoundFile, str]]
    finished: int
    order: list[str]
    remove: list[Outcome]


def plan(
    out: Path,
    files: Sequence[FoundFile],
    settings: str,
    existing: Existing = "keep",
) -> Plan:
    """Return the work to do; changes no file.

    Args:
        out: folder of the results.
        files: the inputs.
        settings: hash of the settings; `resume` goes on with results of the same ones only.
        existing: see `Existing`.

    Raises:
        ValueError: there are results and `existing` is "keep", or results of other settings and it
            is "resume".
    """
    manifest = Manifest(out / MANIFEST)
    kept = [outcome for outcome in manifest.outcomes.values() if outcome.status in KEPT]
    if kept and existing == "keep":
        raise ValueError(
            f"{out} has results of {len(kept)} inputs: --resume goes on, --overwrite replaces them"
        )
    others = [outcome for outcome in kept if outcome.settings != settings]
    if others and existing == "resume":
        raise ValueError(
            f"--resume must have the settings of the results in {out}, which differ from those of "
            f"{others[0].input}; --overwrite replaces them"
        )
    before = manifest.outcomes if existing == "resume" else {}
    done = [shown(f.path) for f in files]
    todo = [
        file
        for file, name in zip(files, done, strict=True)
        if name not in before or not before[name].is_current(file.path, settings)
    ]
    known = {name: before[name].name for name in done if name in before}
    new = [file for file in todo if shown(file.path) not in known]
    taken = [outcome.name for outcome in before.values()]
    names = result_names([f.path for f in new], lambda name: results(out, name), taken)
    known.update(zip((shown(f.path) for f in new), names, strict=True))
    return Plan(
        manifest,
        [(file, known[shown(file.path)]) for file in todo],
        len(files) - len(todo),
        done,
        kept if existing == "overwrite" else [],
    )


def carry_out(
    plan: Plan, out: Path, run: RunUnits, photos: int, on_outcome: Callable[[Outcome], None]
) -> list[Outcome]:
    """Predict the inputs of a plan, and return the outcomes of this run.

    Each outcome is in the manifest as soon as its results are complete. Results that a killed run
    left half-written are removed.

    Args:
        plan: result of `plan`.
        out: folder of the results.
        run: predicts units.
        photos: most photographs of a unit.
        on_outcome: called with each outcome.
    """
    manifest = plan.manifest
    outcomes: list[Outcome] = []
    with _alone(out):
        if Manifest(manifest.path).outcomes != manifest.outcomes:
            raise ValueError(f"{out} was in use by another run, which has ended: start again")
        _remove_partial(out)
        for outcome in plan.remove:
            _remove_results(out, outcome)
        manifest.rewrite([] if plan.remove else manifest.outcomes.values())
        try:
            for finished in run(units_of(plan.files, photos)):
                for outcome in finished:
                    manifest.add(outcome)
                    outcomes.append(outcome)
                    on_outcome(outcome)
        finally:
            _remove_partial(out)
        # In the order of the inputs, whatever the order was in which they ended.
        place = {name: index for index, name in enumerate(plan.order)}
        rows = manifest.outcomes.values()
        manifest.rewrite(sorted(rows, key=lambda row: place.get(row.input, -1)))
    return outcomes


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock on the folder, which the system releases if the process dies."""
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


def _remove_partial(out: Path) -> None:
    for folder in (out / TABLES, out / ANNOTATED):
        for path in folder.rglob(".*.partial.*"):
            path.unlink(missing_ok=True)


def _remove_results(out: Path, outcome: Outcome) -> None:
    for path in results(out, outcome.name):
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)


def results(out: Path, name: str) -> list[Path]:
    """Return the files that may hold the results of a name."""
    kinds = ((TABLES, (".csv", ".parquet")), (ANNOTATED, (".png", ".mp4")))
    return [out / folder / f"{name}{suffix}" for folder, ends in kinds for suffix in ends]
