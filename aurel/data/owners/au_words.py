"""Annotations that list the AUs that are present, as in "4+7+L12"."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from aurel.data.owners.codes import Labels
from aurel.facs import AUSet

# AU, action descriptor or miscellaneous code, with a side or a unilateral mark, and an intensity
_WORD = re.compile(r"([A-Za-z]*?)(?:AU|AD|M)?(\d+)[A-Za-z]*", re.IGNORECASE)


def present_aus(words: str, aus: AUSet, file: Path, line: int) -> Labels:
    """Return the labels of a face, (N,): 1 for the AUs that `words` names, 0 for others.

    An AU without a side is present where it is named with or without a side. One of a side, such as
    AU12L, is present where that side is named, as in the lists of OpenGraphAU. Codes of other AUs
    are ignored.

    Args:
        words: numbers separated by "+", with "L" or "R" in any case before those of one side.
        aus: the AUs of the columns.
        file, line: the place, for messages.

    Raises:
        ValueError: a word without a number.
    """
    named: set[tuple[int, str]] = set()
    for word in words.split("+"):
        if not word.strip():
            continue
        match = _WORD.fullmatch(word.strip())
        if match is None:
            raise ValueError(
                f"{file}, line {line}: AUs must be numbers separated by +, as in 4+7+L12, got "
                f"{words!r}"
            )
        side = match[1].upper() if match[1].upper() in ("L", "R") else ""
        named |= {(int(match[2]), ""), (int(match[2]), side)}
    columns = zip(aus.numbers, aus.sides, strict=True)
    return np.array([pair in named for pair in columns], dtype=np.int8)
