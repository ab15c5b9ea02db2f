"""Predict many files into a folder, and go on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from aurel.vision.file_names import result_names, shown
from aurel.vision.inputs import FoundFile
from aurel.vision.manifest import KEPT, Manifest, Outcome, file_state
from aurel.vision.predict_files import Unit
from aurel.vision.recorded_run import MANIFEST, alone, check_settings, record, without_partial
from aurel.vision.units import media_units

Existing: TypeAlias = Literal["keep", "resume", "overwrite"]
"""Treatment of results in the folder: "keep" raises, "resume" goes on, "overwrite" removes them."""

RunUnits: TypeAlias = Callable[[Iterable[Unit]], Iterator[list[Outcome]]]

TABLES, ANNOTATED = "tables", "annotated"


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
    targets: Callable[[Path, str], list[Path]] | None = None,
) -> Plan:
    """Return the work to do; changes no file.

    Args:
        out: folder of the results.
        files: the inputs.
        settings: hash of the settings; `resume` goes on with results of the same ones only.
        existing: see `Existing`.
        targets: returns the files that may hold the results of a name; None for `results`.

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
    if existing == "resume":
        check_settings(manifest, settings)
    before = manifest.outcomes if existing == "resume" else {}
    done = [shown(f.path) for f in files]
    todo = [
        file
        for file, name in zip(files, done, strict=True)
        if name not in before or not before[name].is_current(file_state(file.path), settings)
    ]
    known = {name: before[name].name for name in done if name in before}
    new = [file for file in todo if shown(file.path) not in known]
    taken = [outcome.name for outcome in before.values()]
    names = result_names([f.path for f in new], partial(targets or results, out), taken)
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
    with alone(out), without_partial([out / TABLES, out / ANNOTATED]):
        if Manifest(manifest.path).outcomes != manifest.outcomes:
            raise ValueError(f"{out} was in use by another run, which has ended: start again")
        for outcome in plan.remove:
            _remove_results(out, outcome)
        manifest.rewrite([] if plan.remove else manifest.outcomes.values())
        outcomes = record(manifest, run(media_units(plan.files, photos)), on_outcome)
        manifest.sort(plan.order)
    return outcomes


def _remove_results(out: Path, outcome: Outcome) -> None:
    for path in results(out, outcome.name):
        if path.resolve().is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)


def results(out: Path, name: str) -> list[Path]:
    """Return the files that may hold the results of a name."""
    kinds = ((TABLES, (".csv", ".parquet")), (ANNOTATED, (".png", ".mp4")))
    return [out / folder / f"{name}{suffix}" for folder, ends in kinds for suffix in ends]
