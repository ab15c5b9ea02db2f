"""Prepare many inputs into a folder, and go on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurel.data.owners.layout import OwnerLayout
from aurel.data.owners.table import FrameTable
from aurel.data.registry import DatasetInfo
from aurel.data.shard_files import write_shards
from aurel.vision.inputs import FoundFile
from aurel.vision.manifest import KEPT, Manifest, Outcome, file_state
from aurel.vision.preparation.collect import (
    MEDIA,
    Part,
    folds_of,
    media_entries,
    samples,
    table_entries,
    videos_of,
    write_frames,
    write_lists,
)
from aurel.vision.preparation.preparer import ChipOptions
from aurel.vision.preparation.records import (
    IMAGES,
    KINDS,
    RECORDS,
    chip_path,
    read_record,
    record_path,
    remove_results,
)
from aurel.vision.preparation.tasks import FrameTask, frame_task
from aurel.vision.recorded_run import MANIFEST, alone, check_settings, record, without_partial
from aurel.vision.run_files import Existing, plan
from aurel.vision.units import media_units

LISTS, SHARDS = "list", "shards"
PHOTOS = 32
"""Most photographs of a unit."""

AnyUnit = tuple[Any, ...]
RunUnits = Callable[[Iterable[AnyUnit]], Iterator[list[Outcome]]]


@dataclass(frozen=True)
class Dataset:
    """A data set to prepare.

    Args:
        info: its entry in the registry.
        owner: the layout of its files.
        table: its frames.
    """

    info: DatasetInfo
    owner: OwnerLayout
    table: FrameTable


@dataclass(frozen=True)
class Work:
    """The work that is left in a folder.

    Args:
        manifest: the record of the folder.
        units: units of work.
        number: number of inputs in them.
        finished: number of inputs that an earlier run has done.
        order: names of all inputs of the run in the manifest.
        dataset: the data set, or None for files.
        replaced: names of results to remove.
    """

    manifest: Manifest
    units: Iterator[AnyUnit]
    number: int
    finished: int
    order: list[str]
    dataset: Dataset | None
    replaced: list[str]


@dataclass(frozen=True)
class Prepared:
    """The result of a run.

    Args:
        outcomes: those of this run.
        chips: number of chips of all inputs in the folder.
        without: number of labeled frames of a data set that have no chip.
        landmarks: number of chips with 49 landmarks.
        shards: the tar files.
    """

    outcomes: list[Outcome]
    chips: int
    without: int
    landmarks: int
    shards: list[Path]


def plan_files(
    files: Sequence[FoundFile], options: ChipOptions, *, overwrite: bool = False
) -> Work:
    """Return the work to do for photographs and videos; changes no file.

    Raises:
        ValueError: the folder has results of other settings, or other files.
    """
    _check_folder(options.out)
    existing: Existing = "overwrite" if overwrite else "resume"
    found = plan(options.out, files, options.settings, existing, _first_files)
    return Work(
        found.manifest,
        media_units(found.files, PHOTOS),
        len(found.files),
        found.finished,
        found.order,
        None,
        [outcome.name for outcome in found.remove],
    )


def plan_dataset(dataset: Dataset, options: ChipOptions, *, overwrite: bool = False) -> Work:
    """Return the work to do for a data set; changes no file.

    A video is done if its files have not changed since, and its record has the same frames.

    Raises:
        ValueError: the folder has results of other settings, or other files; or a person of the
            data set is in no fold.
    """
    _check_folder(options.out)
    table = dataset.table
    for fold in range(1, dataset.owner.folds + 1):
        dataset.owner.tested(table, fold)
    manifest = Manifest(options.out / MANIFEST)
    replaced = []
    if overwrite:
        replaced = [row.name for row in manifest.outcomes.values() if row.status in KEPT]
    else:
        check_settings(manifest, options.settings)
    videos = list(videos_of(table))
    before = {} if overwrite else manifest.outcomes
    todo = [rows for rows in videos if not _is_done(rows, table, before, options)]
    order = [table.videos[rows[0]] for rows in videos]
    finished = len(videos) - len(todo)
    units = _frame_units(table, todo)
    return Work(manifest, units, len(todo), finished, order, dataset, replaced)


def prepare(
    work: Work,
    options: ChipOptions,
    run: RunUnits,
    on_outcome: Callable[[Outcome], None],
    shards: Callable[[int], int] | None = None,
) -> Prepared:
    """Prepare the inputs of a plan, and write the table of frames, the lists and the shards.

    Args:
        work: result of `plan_files` or `plan_dataset`.
        options: form of the chips.
        run: prepares units.
        on_outcome: called with each outcome.
        shards: returns the number of shards for a number of chips; None for no shards.

    Raises:
        ValueError: another run uses the folder, or there are no chips for shards.
    """
    out, manifest = options.out, work.manifest
    folders = [out / IMAGES, out / RECORDS, out / LISTS, out / SHARDS]
    with alone(out), without_partial(folders):
        for name in work.replaced:
            remove_results(out, name)
        manifest.rewrite([] if work.replaced else manifest.outcomes.values())
        outcomes = record(manifest, run(work.units), on_outcome)
        manifest.sort(work.order)
        name, parts, chips, without = _collect(work, options)
        for folder in [out / LISTS, *([out / SHARDS / LISTS] if shards else [])]:
            _write_lists(folder, name, parts, work.dataset, options.kind)
        written = []
        if shards is not None:
            aus = () if work.dataset is None else work.dataset.table.aus.names
            packed = samples(chips, out / IMAGES, options.kind, aus)
            written = write_shards(out / SHARDS, name, packed, shards(len(chips)))
    landmarks = sum(chip.landmarks is not None for chip in chips)
    return Prepared(outcomes, len(chips), without, landmarks, written)


def _collect(work: Work, options: ChipOptions) -> tuple[str, list[Part], list[Any], int]:
    """Write the table of frames; return the name of the lists, the parts and all chips.

    The last number is that of labeled frames without a chip.
    """
    out, manifest = options.out, work.manifest
    if work.dataset is None:
        outcomes = list(manifest.outcomes.values())
        write_frames(out, outcomes, [], options.kind)
        chips = media_entries(out, outcomes)
        return MEDIA, [Part("train", None, chips)], chips, 0
    table = work.dataset.table
    outcomes = [row for name in work.order if (row := manifest.outcomes.get(name)) is not None]
    write_frames(out, outcomes, table.missing, options.kind)
    entries = table_entries(out, table, manifest.outcomes)
    parts = folds_of(table, work.dataset.owner, entries)
    found = [entry for entry in entries if entry is not None]
    return work.dataset.info.name, parts, found, len(entries) + len(table.missing) - len(found)


def _write_lists(
    folder: Path, name: str, parts: Sequence[Part], dataset: Dataset | None, suffix: str
) -> None:
    codes = None
    if dataset is not None:  # the first code of each label
        codes = {label: code for code, label in reversed([*dataset.info.labels.items()])}
    for part in parts:
        write_lists(folder, name, part, suffix, codes)


def _is_done(
    rows: range, table: FrameTable, before: dict[str, Outcome], options: ChipOptions
) -> bool:
    outcome = before.get(table.videos[rows[0]])
    if outcome is None or outcome.status != "done":
        return False
    state = file_state(*dict.fromkeys(table.sources[row].path for row in rows))
    numbers = set(table.numbers[rows.start : rows.stop].tolist())
    recorded = {row["frame"] for row in read_record(options.out, outcome.name)}
    return outcome.is_current(state, options.settings) and recorded == numbers


def _frame_units(table: FrameTable, todo: Iterable[range]) -> Iterator[tuple[FrameTask, ...]]:
    """Yield the units of work: a video, or up to `PHOTOS` single pictures in a row."""
    waiting: list[FrameTask] = []
    for rows in todo:
        task = frame_task(table, rows)
        if len(rows) > 1:
            yield (task,)
            continue
        waiting.append(task)
        if len(waiting) == PHOTOS:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


def _check_folder(out: Path) -> None:
    """Raise ValueError for a folder with pictures of other programs."""
    if (out / MANIFEST).exists():
        if (out / "tables").is_dir():
            raise ValueError(f"{out} must be a folder of aurel prepare, got one of aurel predict")
        return
    for name in (IMAGES, LISTS, RECORDS, SHARDS):
        if (out / name).exists():
            raise ValueError(
                f"{out} must be new, or a folder of aurel prepare, got one with {name}"
            )


def _first_files(out: Path, name: str) -> list[Path]:
    chips = [chip_path(out, f"{name}/0/0", kind) for kind in KINDS]
    return [record_path(out, name), *chips]
