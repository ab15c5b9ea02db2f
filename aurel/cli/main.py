"""The `aurel` command.

Each subcommand is a module with two functions: ``add_parser(subparsers)`` adds its argparse parser
and imports no large package; ``run(args) -> int`` does the work and returns the exit code. A module
that parses its options itself sets the parser default ``takes_rest=True``; the arguments that
argparse does not know are then in ``args.rest``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from aurel.cli.errors import guarded

COMMANDS = {
    "demo": "aurel.cli.demo",
    "data": "aurel.cli.data",
    "fit": "aurel.cli.fit",
    "test": "aurel.cli.test",
    "crossval": "aurel.cli.crossval",
    "table": "aurel.cli.table",
    "prepare": "aurel.cli.prepare",
    "predict": "aurel.cli.predict",
    "abaw": "aurel.cli.abaw",
    "graph": "aurel.cli.graph",
    "relations": "aurel.cli.relations",
    "export": "aurel.cli.export",
    "convert": "aurel.cli.convert",
    "models": "aurel.cli.models",
    "weights": "aurel.cli.weights",
    "recipes": "aurel.cli.recipes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: `sys.argv[1:]`) and return its exit code."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "takes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return guarded(lambda: import_module(COMMANDS[args.command]).run(args), debug=args.debug)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="aurel", description="Relations between facial action units: train, test, predict."
    )
    parser.add_argument("--version", action="version", version=f"aurel {version('aurel-au')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of any error")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for module in COMMANDS.values():
        import_module(module).add_parser(subparsers)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
