"""AUREL: graph learning over facial action units.

Layers, ops, losses and the FACS vocabulary need torch and numpy alone:

    from aurel.layers import SelfAdjustingGCN, MultiDimensionalEdges
    from aurel.ops import knn_max_relative

Models, data, training, pictures and commands come with the extras of the distribution `aurel-au`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurel.ops.backend import use_backend

__version__ = "0.1.0"

__all__ = ["__version__", "use_backend"]


def __getattr__(name: str) -> Any:
    # Imported at its first use, because it takes torch along, which `aurel --help` does not need.
    if name == "use_backend":
        return import_module("aurel.ops.backend").use_backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
