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
    from aurel.weights import find, list_weights, weights_info

    names = list_weights(pattern)
    if not names:
        raise ValueError(f"pattern must match weights, got {pattern!r}; aurel weights list")
    head = ("name", "model", "AUs", "cached", "license", "reported by the authors")
    rows = []
    for name in names:
        entry = weights_info(name)
        aus = entry.aus if isinstance(entry.aus, str) else str(len(entry.aus or ()) or "")
        cached = "yes" if find(name) else "no"
        rows.append((name, entry.model or "", aus, cached, entry.license.name, entry.reported))
    try:
        from rich.table import Table

        from aurel.cli.console import make_console
    except ImportError:
        for row in (head, *rows):
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False)
    for column in head:
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*row)
    make_console().print(table)


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
