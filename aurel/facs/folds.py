"""Subject-exclusive three-fold splits of BP4D and DISFA."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FOLDS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        dataset: tuple(tuple(part.split()) for part in parts)
        for dataset, parts in {
            "BP4D": (
                "F001 M007 F018 F008 F002 M004 F010 F009 M012 M001 F016 M014 F023 M008",
                "M011 F003 M010 M002 F005 F022 M018 M017 F013 M016 F020 F011 M013 M005",
                "F007 F015 F006 F019 M006 M009 F012 M003 F004 F021 F017 M015 F014",
            ),
            "DISFA": (
                "SN002 SN010 SN001 SN026 SN027 SN032 SN030 SN009 SN016",
                "SN013 SN018 SN011 SN028 SN012 SN006 SN031 SN021 SN024",
                "SN003 SN029 SN023 SN025 SN008 SN005 SN007 SN017 SN004",
            ),
        }.items()
    }
)
"""Subjects of parts 1, 2 and 3 (the SACL paper's Fold-1 to Fold-3, Table 3) of each data set.

Subjects are in the order of the published list files of ME-GraphAU, MDHR and MACG.
"""


def fold_split(dataset: str, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the training and the test subjects of a fold, numbered as in the published files.

    Fold f tests part 4 - f: fold 1 trains on parts 1 and 2 and tests part 3, fold 2 trains on 1
    and 3 and tests 2, fold 3 trains on 2 and 3 and tests 1. Files and checkpoints of ME-GraphAU,
    MDHR and MACG are numbered so; the SACL paper calls part i "Fold-i". Averages over the folds are
    the same, results of one fold are not.

    Args:
        dataset: "BP4D" or "DISFA", in any case.
        fold: 1, 2 or 3.

    Raises:
        ValueError: a data set without published folds, or no such fold.
    """
    by_key = {name.lower(): parts for name, parts in FOLDS.items()}
    if dataset.lower() not in by_key:
        raise ValueError(f"dataset must be one of {', '.join(FOLDS)}, got {dataset!r}")
    parts = by_key[dataset.lower()]
    if fold not in range(1, len(parts) + 1):
        raise ValueError(f"fold must be in 1..{len(parts)}, got {fold}")
    tested = len(parts) - fold
    train = tuple(s for i, part in enumerate(parts) if i != tested for s in part)
    return train, parts[tested]
