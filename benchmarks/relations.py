"""Do relation layers use the relations between AUs? A test with known bounds, without images.

    python benchmarks/relations.py                              # three label worlds, three seeds
    python benchmarks/relations.py --labels FILE --groups subject
    python benchmarks/relations.py --out benchmarks/results/relations

The labels are those of a world or a file; the evidence shows each AU by itself, and for 40 % of the
AUs it is noise ("covered"). Only relations inform about a covered AU. Each net is a linear map of
each AU's own, a relation layer and a read-out of each AU's own. Its AUC on covered AUs lies between
the local Bayes bound (an AU's own evidence) and the exact posterior (all evidence and the joint
distribution of the labels): "closed" is the share of the way. Once more with the labels of each AU
permuted over the frames, there is nothing to find: the share must be about 0.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from machine import processor
from relation_nets import LAYERS
from relation_report import Row, page, tables
from relation_runs import BATCH, Job, measure, run, today

from aurel.files import atomic_path

WORLDS = ("BP4D", "DISFA", "EmotioNet")
ROUNDS = 15
BAR, BAR_STEPS = 0.9, 400
"""Least share that PairwiseInference must close on the world of BP4D, in this many steps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and score all nets; write and print the tables. Return 1 where the bar is missed."""
    options = parse(arguments)
    start = time.perf_counter()
    jobs = jobs_of(options)
    result: dict[str, Any] = {"about": about(options), "rows": [], "times": []}
    for rows in finished(jobs, options.jobs):
        result["rows"] += rows
        write(result, options.out)
    for job in jobs:
        if job.seed == options.seeds[0] and not job.permute:
            result["times"] += measure(job, ROUNDS)
    write(result, options.out)
    print(tables(result))
    print(f"\n{time.perf_counter() - start:.0f} s in {options.jobs} processes")
    return 1 if misses_bar(result["rows"]) else 0


def finished(jobs: Sequence[Job], processes: int) -> Iterator[list[Row]]:
    """Yield the rows of each job when it ends; one process is this one."""
    if processes == 1:
        yield from map(run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            yield future.result()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", nargs="+", default=list(WORLDS), choices=WORLDS)
    parser.add_argument("--labels", type=Path, help="a CSV file of labels, instead of the worlds")
    parser.add_argument("--groups", help="its column of subjects, who are held out as a whole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="writes OUT.jsonl, the rows, and OUT.md")
    options = parser.parse_args(arguments)
    if options.groups and not options.labels:
        parser.error("--groups must name a column of --labels FILE, got no file")
    return options


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Return all jobs; labels are permuted for the first seed alone."""
    runs = [(seed, False) for seed in options.seeds] + [(options.seeds[0], True)]
    return [
        Job(source, options.groups, *which, tuple(options.layers), options.steps, options.threads)
        for which in runs
        for source in ([options.labels] if options.labels else options.world)
    ]


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return the conditions of the run."""
    return {
        "labels": "--labels FILE" if options.labels else f"--world {' '.join(options.world)}",
        "date": today(),
        "torch": torch.__version__.partition("+")[0],
        "device": processor(),
        "threads": options.threads,
        "jobs": options.jobs,
        "steps": options.steps,
        "seeds": options.seeds,
        "batch": BATCH,
    }


def write(result: dict[str, Any], out: Path | None) -> None:
    """Write the result so far, as lines of JSON and as a page."""
    if out is None:
        return
    kinds = (("about", [result["about"]]), ("score", result["rows"]), ("time", result["times"]))
    rows = [json.dumps({"kind": kind, **row}) for kind, rows in kinds for row in rows]
    for suffix, text in ((".jsonl", "\n".join(rows) + "\n"), (".md", page(result))):
        with atomic_path(out.with_suffix(suffix)) as temporary:
            temporary.write_text(text)


def misses_bar(rows: Sequence[Row]) -> bool:
    """Return whether PairwiseInference closes less than it must, and print it."""
    barred = ("BP4D", "PairwiseInference", False)
    closed = [
        row["closed"]
        for row in rows
        if (row["world"], row["layer"], row["permuted"]) == barred and row["steps"] >= BAR_STEPS
    ]
    missed = bool(closed) and statistics.mean(closed) < BAR
    if missed:
        print(f"PairwiseInference must close {BAR:.0%} on BP4D, got {closed}", file=sys.stderr)
    return missed


if __name__ == "__main__":
    sys.exit(main())
