"""Tables of action units from any tool, and the relations that they show.

`AUTable` reads; `find_relations` returns all statistics at once. The statistics need scipy, which
the extra `tables` brings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aurel.tables.au_table import Account, AUTable
from aurel.tables.reading import ReadOptions

_HOMES = {
    "ising_couplings": "aurel.tables.couplings",
    "find_relations": "aurel.tables.relations",
    "Relations": "aurel.tables.relations",
    "Tested": "aurel.tables.relations",
    "Timing": "aurel.tables.relations",
    "Estimate": "aurel.tables.resampling",
    "Units": "aurel.tables.resampling",
    "Comparison": "aurel.tables.comparison",
    "Difference": "aurel.tables.comparison",
}

__all__ = [
    "AUTable",
    "Account",
    "Comparison",
    "Difference",
    "Estimate",
    "ReadOptions",
    "Relations",
    "Tested",
    "Timing",
    "Units",
    "find_relations",
    "ising_couplings",
]

if TYPE_CHECKING:
    from aurel.tables.comparison import Comparison, Difference
    from aurel.tables.couplings import ising_couplings
    from aurel.tables.relations import Relations, Tested, Timing, find_relations
    from aurel.tables.resampling import Estimate, Units
else:  # a type checker that saw it would let any name pass

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
