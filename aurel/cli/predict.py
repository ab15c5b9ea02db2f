"""`aurel predict`: predict the AUs of the faces in photographs and videos."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aurel.cli.errors import BAD_INPUT, one_line, report
from aurel.cli.predict_options import TUNED, add_parser

if TYPE_CHECKING:
    from aurel.vision.inputs import FoundFiles
    from aurel.vision.manifest import Outcome
    from aurel.vision.predict_files import Results, Unit, UnitPredictor

__all__ = ["add_parser", "counted", "run"]

SHOWN = 10
"""Number of names of skipped files that are printed; the manifest has all."""
GPU_WORKERS = 4
MOST_THREADS = 8
"""Largest number of batches of a video that the model takes at once."""

OnProgress = Callable[[Path, int, int | None], None]


def run(args: argparse.Namespace) -> int:
    """Predict the AUs of all inputs; return 2 if an input cannot be read, else 0."""
    from aurel.cli.file_progress import file_progress
    from aurel.cli.predict_model import settings_of
    from aurel.vision.inputs import InputError, find_files
    from aurel.vision.live import is_live
    from aurel.vision.predict_files import Results
    from aurel.vision.recorded_run import MANIFEST
    from aurel.vision.run_files import ANNOTATED, TABLES, carry_out, plan

    check_options(args)
    if any(is_live(source) for source in args.inputs):
        from aurel.cli.live_view import run_live

        return run_live(args)
    tables, annotated = args.out / TABLES, args.out / ANNOTATED
    found = find_files(args.inputs, skip=[tables, annotated, args.out / MANIFEST])
    for line in found.errors:
        report(f"error: {line}")
    if not found.files:
        raise InputError(f"no photographs or videos in {', '.join(args.inputs)}")
    settings = settings_of(args)
    work = plan(args.out, found.files, settings, args.existing)
    copies = None if args.csv_only else annotated
    results = Results(tables, copies, args.format, args.every, settings)
    with file_progress(len(work.files)) as on_progress:
        # The model is loaded before anything is written, so that nothing is left by its errors.
        runner = _runner(args, results, on_progress)

        def on_outcome(outcome: Outcome) -> None:
            on_progress(Path(outcome.input), 1, 1)
            if outcome.status in ("failed", "incomplete"):
                report(f"error: {one_line(ValueError(outcome.reason))}")

        outcomes = carry_out(work, args.out, runner, args.batch_size, on_outcome)
    return _summary(args.out, found, outcomes, work.finished)


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option out of its range, and ImportError without its package."""
    for name in ("every", "batch_size", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    for name in ("threshold", "min_face", "min_confidence"):
        value = getattr(args, name)
        if value not in (None, TUNED) and not 0 <= value <= 1:
            raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1], got {value}")
    if args.format == "parquet":
        from aurel.vision.prediction_table import check_parquet

        check_parquet()


def make_unit_predictor(
    args: argparse.Namespace, results: Results, threads: int = 1
) -> UnitPredictor:
    """Return the function that predicts a unit of work, for this process.

    On a CPU each operation runs in one thread, so that results do not depend on their number.
    """
    import torch

    from aurel.cli.predict_model import load_predictor
    from aurel.vision.predict_files import UnitPredictor

    predictor = load_predictor(args)
    if predictor.device.type == "cpu":
        torch.set_num_threads(1)
    return UnitPredictor(predictor, results, threads=threads)


def _runner(
    args: argparse.Namespace, results: Results, on_progress: OnProgress
) -> Callable[[Iterable[Unit]], Iterator[list[Outcome]]]:
    """Return the function that predicts units: here, in processes, or on a Ray cluster."""
    from aurel.cli.predict_model import warn_of
    from aurel.vision.units import up_to

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = make_unit_predictor(args, results)
    here.on_progress = on_progress
    on_cpu = here.predictor.device.type == "cpu"
    warn_of(here.predictor)
    most = args.workers or ((cores or 1) if on_cpu else min(cores or 1, GPU_WORKERS))

    def run_units(units: Iterable[Unit]) -> Iterator[list[Outcome]]:
        if args.ray is not None:
            from aurel.vision.ray_workers import run_on_ray

            yield from run_on_ray(partial(make_unit_predictor, args, results), units, args.ray)
            return
        count, units = up_to(most, units)
        threads = max(1, min(MOST_THREADS, (cores or 1) // max(1, count))) if on_cpu else 1
        if count <= 1:
            here.threads = threads
            yield from map(here, units)
        else:
            from aurel.vision.workers import run_in_processes

            make = partial(make_unit_predictor, args, results, threads)
            yield from run_in_processes(make, units, count)

    return run_units


def _summary(out: Path, found: FoundFiles, outcomes: list[Outcome], finished: int) -> int:
    """Print what was done and what was skipped, and return the exit code."""
    from aurel.vision.file_names import shown
    from aurel.vision.inputs import InputError
    from aurel.vision.manifest import KEPT
    from aurel.vision.run_files import TABLES

    kept = [outcome for outcome in outcomes if outcome.status in KEPT]
    others = [outcome.input for outcome in outcomes if outcome.status == "skipped"]
    others += [shown(path) for path in found.special]
    if found.hidden:
        report(f"skipped {counted(found.hidden, 'hidden item')}")
    if others:
        names = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        report(f"skipped {counted(len(others), 'other file')}, no photograph or video: {names}")
    if finished:
        report(f"skipped {counted(finished, 'file')} that an earlier run has done")
    if not kept and not finished:
        raise InputError("no results were written")
    faces = counted(sum(outcome.faces for outcome in kept), "face")
    print(f"{faces} in {counted(len(kept), 'file')}: {out / TABLES}")
    bad = found.errors or any(o.status in ("failed", "incomplete") for o in outcomes)
    return BAD_INPUT if bad else 0


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 face" or "2 faces"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
