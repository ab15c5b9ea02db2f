"""`aurel data check`: a report on the data of a recipe, or of a folder."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel data`; the options of a recipe are read by jsonargparse later."""
    parser = subparsers.add_parser("data", help="check the data of a recipe, or of a folder")
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    check = actions.add_parser(
        "check",
        help="report images, people, labels and the checksum of the split",
        allow_abbrev=False,
        epilog="other options are those of aurel fit, such as --data.fold 2",
    )
    check.add_argument("--config", help="recipe: a YAML file or a name")
    check.add_argument("--data", metavar="NAME", help="data set, in place of a recipe")
    check.add_argument("--root", help="folder of the data set")
    parser.set_defaults(takes_rest=True)
    check.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Print the report; raise ValueError for data on which no run can be trained."""
    from aurel.cli.config import parse
    from aurel.data import dataset_info

    if (args.config is None) == (args.data is None):
        raise ValueError("one of --config RECIPE and --data NAME must be given")
    given = [] if args.config is None else ["--config", args.config]
    if args.data is not None:  # the parts of the data set, without people held out
        given += ["--data.dataset", args.data, "--model.name", "none", "--data.validation", "0"]
    given += [] if args.root is None else ["--data.root", args.root]
    options, _, _ = parse("data check", [*given, *args.rest])
    if args.data is not None and dataset_info(args.data, options.data.aus).aus is None:
        options.data.triplets = True

    from aurel.cli.console import make_console
    from aurel.training.report import data_report
    from aurel.training.run import load_splits, load_splits_of

    splits = load_splits(options) if args.data is None else load_splits_of(options)
    report = data_report(splits)
    make_console().print(str(report), markup=False, highlight=False, soft_wrap=True)
    report.check()
    return 0
