"""The terms of a license: shown once, and agreed to where the owners ask for it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from aurel.weights.cache import folder, is_set
from aurel.weights.entry import License, Weights


def require_agreement(entry: Weights, agree: bool = False) -> None:
    """Show the terms of the license of `entry`, once, and ask for agreement.

    The agreement is recorded in the cache with the text; other terms are shown anew. A license
    that asks for no agreement, such as MIT, is only shown.

    Args:
        entry: the weights.
        agree: agree without a question; so does the environment variable AUREL_AGREE=1.

    Raises:
        ValueError: the user does not agree, or cannot be asked.
    """
    if _text(entry.license) == _agreed(entry.license):
        return
    print(f"{entry.name}: {_text(entry.license)}", file=sys.stderr)
    if entry.license.agreement and not (agree or is_set("AUREL_AGREE")):
        _ask(entry)
    with suppress(OSError):  # a folder that may not be written: the terms are shown again
        record = _record(entry.license)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(_text(entry.license), encoding="utf-8")


def _ask(entry: Weights) -> None:
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValueError(
            f"the license of {entry.name} ({entry.license.name}) must be agreed to: "
            f"aurel weights get {entry.name} --agree, agree=True in Python, or AUREL_AGREE=1 in "
            "the environment; got no answer"
        )
    print("Do you agree? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError(f"the license of {entry.name} must be agreed to, got no")


def _text(terms: License) -> str:
    return f"license: {terms.name}\n{terms.terms}"


def _agreed(terms: License) -> str | None:
    record = _record(terms)
    return record.read_text(encoding="utf-8") if record.is_file() else None


def _record(terms: License) -> Path:
    return folder() / "licenses" / f"{terms.id}.txt"
