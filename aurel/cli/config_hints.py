"""Advice for options that the parser of recipes does not know, or lacks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from aurel.cli.recipes import nearest
from aurel.training.options import RunOptions

_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)")
_NO_MODEL = re.compile(r"required: model\.name|[\"']?model\.name[\"']? is required")


def hinted(message: str) -> str:
    """Return a message of the parser, with advice where it names an unknown or missing option."""
    if _NO_MODEL.search(message):
        return (
            "--config must be given, a recipe's name or file, such as --config me_graphau_bp4d; "
            f"{nearest('')}"
        )
    if found := _UNKNOWN.search(message):
        return f"{message}; {_advice(found[1])}"
    return message


def _advice(name: str) -> str:
    section, _, option = name.partition(".")
    known = list(option_names())
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
    if section == "model" and option and not close:
        return f"options of the model itself are given as --model.options.{option} VALUE"
    if not close:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"nearest: {', '.join('--' + match for match in close)}" if close else "see --help"


def option_names(of: type[Any] = RunOptions, prefix: str = "") -> Iterator[str]:
    """Yield the names of all options of a run, such as "trainer.max_epochs"."""
    types = get_type_hints(of)
    for option in fields(of):
        kind = types[option.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from option_names(kind, f"{prefix}{option.name}.")
        else:
            yield prefix + option.name
