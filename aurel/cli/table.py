"""`aurel table`: one table of the results of many runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATS = ("text", "markdown", "csv", "latex")
METRICS = ("f1", "accuracy", "auc", "ece", "icc", "pcc", "mse", "mae")

_DESCRIPTION = """\
Collect the results.json below folders into a table with AUs as columns.

Each folder is a row: the mean over the folds and seeds in it, and below it their standard deviation
(over the means of the seeds if there are several, else over the folds). Rows that papers report for
the same model and data set follow, labeled "reported".

A folder must hold results of one recipe and protocol, and of the same test people and labels of a
fold. Rows whose test data differ from those of the first row are marked with *.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel table`."""
    parser = subparsers.add_parser(
        "table",
        help="collect the results of many runs into a table",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="folder with results, or a result file"
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        choices=METRICS,
        default=["f1"],
        help="scores, a table for each (f1)",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="(text)")
    parser.add_argument("--each", action="store_true", help="add a row for each fold and seed")
    parser.add_argument("--out", type=Path, help="file to write instead of the terminal")


def run(args: argparse.Namespace) -> int:
    """Print the tables, or write them to a file."""
    from aurel.files import atomic_path

    text = tables(args.paths, args.metric, args.format, args.each)
    if args.out is None:
        print(text, end="")
        return 0
    with atomic_path(args.out) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"table       {args.out}")
    return 0


def tables(paths: Sequence[Path], metrics: Sequence[str], form: str, each: bool) -> str:
    """Return the tables of the results below folders in a format of `FORMATS`."""
    from aurel.cli.table_formats import joined
    from aurel.training.comparison import collect, compare

    sources = [collect(path) for path in paths]
    found = [table for metric in metrics for table in compare(sources, metric, each)]
    return joined(found, form)
