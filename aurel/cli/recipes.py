"""Find the recipes of the package by name, and list them: `aurel recipes`."""

from __future__ import annotations

import argparse
import difflib
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel recipes`."""
    parser = subparsers.add_parser(
        "recipes",
        help="list the recipes that --config takes by name",
        description="List the recipes that `aurel fit --config NAME` finds by name.",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="list only names such as '*_bp4d' (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the name and the title of each recipe, and the folder of the files."""
    names = matching(recipe_names(), args.pattern)
    if not names:
        raise ValueError(f"pattern must match a recipe, got {args.pattern!r}; {nearest('')}")
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {title(name)}")
    print(f"\nfiles: {FOLDER}")
    return 0


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def title(name: str) -> str:
    """Return the first line of a recipe, a comment with the model, backbone and data set."""
    with (FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def recipe_file(config: str) -> str:
    """Return the file that `--config` names: a file by its path, or a recipe by its name.

    A file is preferred to a recipe of the same name. A value with a colon is YAML text and is
    returned unchanged.

    Raises:
        ValueError: neither a file nor a recipe; the message lists the recipes with similar names.
    """
    path = Path(config)
    if ":" in config or (path.exists() and not path.is_dir()):
        return config
    name = path.stem
    if config == name and name in recipe_names():
        return str(FOLDER / f"{name}.yaml")
    raise ValueError(
        f"config must be a file or the name of a recipe, got {config!r}; {nearest(name)}"
    )


def nearest(name: str) -> str:
    """Return text that lists the recipes with names similar to `name`, or all if there is none."""
    known = recipe_names()
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"recipes: {', '.join(known)}"
