"""`aurel weights`: list the released weights, download one, and print its path."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurel.weights.transfer import Progress

_DESCRIPTION = """\
Weights that authors released, by name. get downloads a file once into the cache folder, after you
agreed to its license, and prints its path. The folder is that of the platform, or AUREL_WEIGHTS.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel weights`."""
    parser = subparsers.add_parser(
        "weights",
        help="released weights by name: list them, download one, print its path",
        description=_DESCRIPTION,
    )
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    listing = actions.add_parser("list", help="list the weights, their licenses and scores")
    listing.add_argument(
        "pattern", nargs="?", default="*", help="list only names such as 'open_*' (default: all)"
    )
    getting = actions.add_parser("get", help="download weights where they are missing")
    getting.add_argument("name", help="name in aurel weights list")
    getting.add_argument(
        "--agree", action="store_true", help="agree to the license without a question"
    )
    finding = actions.add_parser("path", help="print the path of downloaded weights")
    finding.add_argument("name", help="name in aurel weights list")


def run(args: argparse.Namespace) -> int:
    """Print the list or a path; `path` fails where the file is not there."""
    from aurel import weights

    if args.action == "list":
        _print_list(args.pattern)
    elif args.action == "get":
        with _progress(args.name) as progress:
            print(weights.get(args.name, agree=args.agree, progress=progress))
    else:
        file = weights.find(args.name)
        if file is None:
            raise FileNotFoundError(
                f"{weights.path(args.name)} must exist: aurel weights get {args.name}"
            )
        print(file)
    return 0


def _print_list(pattern: str) -> None:
    from aurel.facs import AUSet
    from aurel.weights import find, list_weights, weights_info

    names = list_weights(pattern)
    if not names:
        raise ValueError(f"pattern must match weights, got {pattern!r}; aurel weights list")
    head = ("name", "AUs", "cached", "reported by the authors")
    entries = [weights_info(name) for name in names]
    rows = [
        (
            entry.name,
            "" if entry.aus is None else str(len(AUSet.of(entry.aus))),
            "yes" if find(entry.name) else "no",
            entry.reported,
        )
        for entry in entries
    ]
    try:
        from rich.table import Table

        from aurel.cli.console import make_console
    except ImportError:
        show: Any = print
        for row in (head, *rows):
            print("\t".join(row))
    else:
        table, console = Table(*head, box=None, pad_edge=False), make_console()
        for row in rows:
            table.add_row(*row)
        console.print(table)
        show = console.print
    for license in {entry.license.id: entry.license for entry in entries}.values():
        covered = ", ".join(entry.name for entry in entries if entry.license == license)
        show(f"\nLicense of {covered}:\n{license.name}. {' '.join(license.terms.split())}")


@contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """Yield a function that shows the progress of a download on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield None
        return
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, console=Console(stderr=True))
    task = bar.add_task(name, total=None)
    started = False

    def show(done: int, total: int | None) -> None:
        # Not before the first byte: the question about the license comes first.
        nonlocal started
        if not started:
            bar.start()
            started = True
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if started:
            bar.stop()
