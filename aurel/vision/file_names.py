"""Names of files as text, and names of result files; both for names of any bytes and length."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

LONGEST = 200
"""Bytes of a result's name; file systems take 255, and temporary names are longer."""

_URI = "file:"


def shown(path: Path | str) -> str:
    """Return a path as printable text, from which `path_of` returns the path.

    A path that UTF-8 cannot represent, that contains control characters or that begins with
    "file:" is written as a URI with percent-encoded bytes, such as ``file:caf%E9.jpg``; all others
    are written as they are.
    """
    text = os.fspath(path)
    if text.isprintable() and not text.startswith(_URI):
        return text
    return _URI + quote(os.fsencode(text))


def path_of(text: str) -> Path:
    """Return the path that `shown` has written."""
    if text.startswith(_URI):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_URI))))
    return Path(text)


def result_names(
    paths: Sequence[Path], targets: Callable[[str], Iterable[Path]], taken: Iterable[str] = ()
) -> list[str]:
    """Return a name without suffix for the results of each input.

    If inputs of several folders have the same name, the names keep as many folders as needed to
    distinguish them: a/face, b/face. Inputs of one folder that differ only in their suffix are
    numbered: face, face-2. Names with characters that are not printable are percent-encoded, and a
    part of more than 200 bytes ends in a hash of its whole.

    Args:
        paths: the inputs, all different.
        targets: returns the files that a name stands for; none of them may be an input.
        taken: names that are in use.

    Returns:
        Relative paths, of which no two are equal, also if case is ignored.
    """
    resolved = [Path(os.path.realpath(path)) for path in paths]
    inputs = {_key(path) for path in resolved}
    used = {name.lower() for name in taken}

    def is_free(name: str) -> bool:
        files = (_key(os.path.realpath(target)) for target in targets(name))
        return name.lower() not in used and inputs.isdisjoint(files)

    names = []
    for tail in _distinct_tails(resolved):
        first = name = "/".join(map(_safe, tail.parts))
        number = 1
        while not is_free(name):
            number += 1
            name = f"{first}-{number}"
        used.add(name.lower())
        names.append(name)
    return names


def _distinct_tails(paths: Sequence[Path]) -> list[Path]:
    """Return the shortest tails that distinguish all paths, without suffixes."""
    bare = [path.relative_to(path.anchor).with_suffix("") for path in paths]
    different = len({_key(path) for path in bare})
    length = 1
    while len({_key(Path(*path.parts[-length:])) for path in bare}) < different:
        length += 1
    return [Path(*path.parts[-length:]) for path in bare]


def _safe(part: str) -> str:
    if not part.isprintable():
        part = quote(os.fsencode(part), safe=" ")
    encoded = part.encode()
    if len(encoded) <= LONGEST:
        return part
    mark = hashlib.sha256(encoded).hexdigest()[:12]
    return f"{encoded[: LONGEST - len(mark) - 1].decode(errors='ignore')}-{mark}"


def _key(path: Path | str) -> str:
    return str(path).lower()
