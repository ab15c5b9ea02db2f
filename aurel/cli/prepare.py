"""`aurel prepare`: find, follow, align and cut out faces once, for training."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import BAD_INPUT, one_line, report
from aurel.cli.face_options import make_detector
from aurel.cli.prepare_options import add_parser

if TYPE_CHECKING:
    from aurel.vision.manifest import Outcome
    from aurel.vision.preparation.preparer import ChipOptions, UnitPreparer
    from aurel.vision.preparation.run import Dataset, Prepared, Work

__all__ = ["add_parser", "run"]


def run(args: argparse.Namespace) -> int:
    """Prepare all inputs; return 2 if an input cannot be read, else 0."""
    from aurel.cli.file_progress import file_progress
    from aurel.vision.preparation.run import prepare

    _check_options(args)
    # The detector is made before anything is written, so that nothing is left by its errors.
    mesh = _has_mesh()
    options = _chip_options(args, mesh)
    make = partial(make_preparer, args, options, mesh)
    here = make()
    work, errors = _plan(args, options)
    with file_progress(work.number) as on_progress:

        def on_outcome(outcome: Outcome) -> None:
            on_progress(Path(outcome.input), 1, 1)
            if outcome.status in ("failed", "incomplete"):
                report(f"error: {one_line(ValueError(outcome.reason))}")

        runner = partial(_run_units, args.workers, here, make)
        done = prepare(work, options, runner, on_outcome, _shards(args))
    return max(errors, _summary(args, work, done))


def make_preparer(args: argparse.Namespace, options: ChipOptions, mesh: bool) -> UnitPreparer:
    """Return the function that prepares a unit of work, for this process.

    Each operation runs in one thread, so that results do not depend on their number.
    """
    import torch

    from aurel.vision.face_mesh import FaceMesh
    from aurel.vision.preparation.preparer import UnitPreparer

    torch.set_num_threads(1)
    return UnitPreparer(make_detector(args), FaceMesh() if mesh else None, options)


def _run_units(
    workers: int | None,
    here: UnitPreparer,
    make: Callable[[], UnitPreparer],
    units: Iterable[Any],
) -> Iterator[list[Outcome]]:
    from aurel.vision.units import up_to
    from aurel.vision.workers import run_in_processes

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count, units = up_to(workers or cores or 1, units)
    if count <= 1:
        yield from map(here, units)
    else:
        yield from run_in_processes(make, units, count)


def _check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option out of its range, or one that has no meaning here."""
    for name in ("every", "size", "workers", "shards", "shard_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if (args.data is None) == (not args.inputs):
        raise ValueError("one of INPUT and --data NAME must be given")
    if args.data is not None and args.root is None:
        raise ValueError(f"--root must be the folder of {args.data}, got none")
    if args.data is not None and args.every != 1:
        raise ValueError(f"--every must be 1 with --data, got {args.every}")
    for name in ("root", "images", "aus", "present"):
        if args.data is None and getattr(args, name) is not None:
            raise ValueError(f"--{name} must be given with --data only, got {getattr(args, name)}")


def _chip_options(args: argparse.Namespace, mesh: bool) -> ChipOptions:
    from aurel.vision.align import find_alignment
    from aurel.vision.preparation.preparer import ChipOptions

    find_alignment(args.alignment)
    margin = 0.0 if args.detector == "whole" else None
    settings = _settings_of(args, mesh)
    return ChipOptions(
        args.out, args.alignment, args.size, args.format, args.every, margin, settings
    )


def _settings_of(args: argparse.Namespace, mesh: bool) -> str:
    """Return a hash of all that the chips and their landmarks depend on."""
    from importlib.metadata import version

    names = ("alignment", "size", "format", "every", "min_face", "min_confidence", "data")
    chosen = {name: getattr(args, name) for name in names}
    detector = type(make_detector(args)).__name__
    content = json.dumps([version("aurel-au"), chosen, detector, mesh], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _has_mesh() -> bool:
    from importlib.util import find_spec

    from aurel.vision.face_mesh import face_mesh_file

    path = face_mesh_file() if find_spec("ai_edge_litert") else None
    return path is not None and path.is_file()


def _plan(args: argparse.Namespace, options: ChipOptions) -> tuple[Work, int]:
    """Return the work to do, and the exit code of what cannot be read before it."""
    from aurel.vision.inputs import InputError, find_files
    from aurel.vision.preparation.run import plan_dataset, plan_files

    if args.data is not None:
        return plan_dataset(_dataset(args), options, overwrite=args.overwrite), 0
    found = find_files(args.inputs, skip=[args.out])
    for line in found.errors:
        report(f"error: {line}")
    if not found.files:
        raise InputError(f"no photographs or videos in {', '.join(args.inputs)}")
    work = plan_files(found.files, options, overwrite=args.overwrite)
    return work, BAD_INPUT if found.errors else 0


def _dataset(args: argparse.Namespace) -> Dataset:
    from aurel.data.owners.dataset import read_table
    from aurel.data.owners.options import OwnerOptions
    from aurel.data.registry import Part, dataset_info, list_datasets
    from aurel.vision.preparation.run import Dataset

    info = dataset_info(args.data)
    if info.owner is None:
        known = ", ".join(name for name in list_datasets() if dataset_info(name).owner)
        raise ValueError(f"--data must be one of {known}, got {args.data}")
    part = Part(
        info.name,
        root=args.root,
        images=args.images,
        aus=args.aus,
        owner=OwnerOptions(present=args.present),
    )
    return Dataset(info, info.owner, read_table(info, part))


def _shards(args: argparse.Namespace) -> Callable[[int], int] | None:
    if args.shard_size is not None:
        return lambda chips: -(-chips // args.shard_size)
    return None if args.shards is None else lambda _: args.shards


def _summary(args: argparse.Namespace, work: Work, done: Prepared) -> int:
    """Print what was done, and return the exit code."""
    from aurel.cli.predict import counted
    from aurel.vision.preparation.collect import FRAMES

    if work.finished:
        report(f"skipped {counted(work.finished, 'input')} that an earlier run has done")
    others = sum(outcome.status == "skipped" for outcome in done.outcomes)
    if others:
        report(f"skipped {counted(others, 'other file')}, no photograph or video")
    if done.without:
        frames = counted(done.without, "labeled frame")
        report(f"{frames} without a chip, in no list: reasons in {args.out / FRAMES}")
    if done.landmarks < done.chips:
        report(
            f"{done.chips - done.landmarks} of {counted(done.chips, 'chip')} have no 49 landmarks: "
            "the owner sends none, and the face mesh is not installed (extra mesh)"
        )
    bad = [row for row in done.outcomes if row.status in ("failed", "incomplete")]
    failed = sum(row.status == "failed" for row in bad)
    if failed and work.dataset is not None:
        report(f"error: the lists lack {counted(failed, 'video')} that could not be prepared")
    print(f"{counted(done.chips, 'chip')} of {counted(len(work.order), 'input')}: {args.out}")
    if done.shards:
        print(f"{counted(len(done.shards), 'shard')}: {done.shards[0].parent}")
    return BAD_INPUT if bad else 0
