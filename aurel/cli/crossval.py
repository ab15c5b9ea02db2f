"""`aurel crossval`: train and test all folds of a recipe, and print their table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import BAD_INPUT, Interrupted, report

if TYPE_CHECKING:
    from aurel.cli.processes import Job
    from aurel.training.crossval import FoldRun

_DESCRIPTION = """\
Train and test the folds of a recipe, and print the table of their scores.

  aurel crossval --config sacl_bp4d --data.root /data/BP4D
  aurel fit --config sacl_bp4d --data.root /data/BP4D --folds all       (the same)

Options of the recipe are as for `aurel fit`. Each fold has a folder, OUT/fold1 and so on, or
OUT/seed7/fold1 with a seed that is not the recipe's; OUT is runs/MODEL_DATASET unless --out names
another folder.
Before the first run it is checked that every person is tested once and trains no fold that tests
this person.

The same command continues after Ctrl-C or a fault: finished folds are kept, and a fold that was
stopped continues from its last checkpoint. OUT/table.md and OUT/table.csv have the scores.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel crossval`; the options of the recipe are read by jsonargparse."""
    parser = subparsers.add_parser(
        "crossval",
        help="train and test all folds of a recipe",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, folds="all")
    parser.set_defaults(takes_rest=True)


def add_options(parser: argparse.ArgumentParser, folds: str | None) -> None:
    """Add the options of the folds to a parser, with a default for ``--folds``."""
    parser.add_argument(
        "--folds", default=folds, metavar="LIST", help="'all', or numbers such as 1,2,3"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="number of folds trained at a time (1)"
    )
    parser.add_argument(
        "--seeds", metavar="LIST", help="run every fold with each of these seeds, such as 0,1,2"
    )


def run(args: argparse.Namespace) -> int:
    """Train and test the folds; return 2 if one of them failed, else 0."""
    from aurel.cli.config import parse

    if args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    options, checkpoint, text = parse("fit", args.rest)
    if checkpoint is not None:
        raise ValueError("--ckpt_path must be absent, because folds continue by themselves")
    seeds = _numbers(args.seeds) if args.seeds is not None else [options.seed]

    from dataclasses import replace

    from aurel.cli.console import make_console
    from aurel.training.crossval import check_people, choose_folds, plan, write_recipe
    from aurel.training.run import run_folder

    console = make_console()
    folds = choose_folds(options.data, args.folds)
    if not options.data.triplets:
        tested = check_people(options.data, folds, args.folds == "all")
        console.print(f"people      {tested}, each tested once")
    folder = run_folder(replace(options, data=replace(options.data, fold=None)))
    runs = plan(folder, folds, seeds, options.seed)
    recipe = write_recipe(folder, text)
    finished = [run for run in runs if run.finished]
    console.print(f"runs        {len(runs)} in {folder}, {len(finished)} finished before")
    failed = _run(runs, recipe, args.jobs, lambda line: console.print(line))
    intensities = options.data.target == "intensity"
    _tables(folder, runs, lambda line: console.print(line, markup=False), intensities)
    for job in failed:
        where = "" if job.log is None else f"; see {job.log}"
        report(f"error: {job.label} ended with exit code {job.code}{where}")
    return BAD_INPUT if failed else 0


def _run(runs: Sequence[FoldRun], recipe: Path, parallel: int, say: Any) -> list[Job]:
    """Run what is not finished, and return the jobs that failed."""
    from aurel.cli.processes import Job, aurel_command, run_jobs
    from aurel.training.crossval import fit_arguments, test_arguments

    def job_of(run: FoldRun) -> Job:
        steps = [
            lambda: aurel_command(fit_arguments(run, recipe)),
            lambda: aurel_command(test_arguments(run)),
        ]
        return Job(run.label, steps, run.folder / "run.log" if parallel > 1 else None)

    def ended(job: Job) -> None:
        say(f"{job.label:<12} {'done' if job.code == 0 else 'failed'}")

    jobs = [job_of(run) for run in runs if not run.finished]
    try:
        run_jobs(jobs, parallel, ended)
    except KeyboardInterrupt as stop:
        done = sum(run.finished for run in runs)
        raise Interrupted(
            f"interrupted; {done} of {len(runs)} runs are finished; the same command continues"
        ) from stop
    return [job for job in jobs if job.code not in (0, None)]


def _tables(folder: Path, runs: Sequence[FoldRun], say: Any, intensities: bool) -> None:
    """Print the table of F1, and of ICC for intensities, and write all tables beside the runs."""
    from aurel.cli.table import tables
    from aurel.files import atomic_path
    from aurel.training.comparison import METRICS, OF_INTENSITIES
    from aurel.training.crossval import check_tested_once

    if not any(run.finished for run in runs):
        return
    check_tested_once(runs)
    metrics = [name for name in METRICS if intensities or name not in OF_INTENSITIES]
    shown = ["f1", "icc"] if intensities else ["f1"]
    say("\n" + tables([folder], shown, "text", each=True).rstrip())
    for form, name in (("markdown", "table.md"), ("csv", "table.csv")):
        with atomic_path(folder / name) as partial:
            text = tables([folder], metrics, form, each=True)
            partial.write_text(text, encoding="utf-8")
    say(f"tables      {folder / 'table.md'}, {folder / 'table.csv'}")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--seeds must be numbers such as 0,1,2, got {text!r}") from error
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds must be different, got {text}")
    return numbers
