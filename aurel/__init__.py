"""AUREL: graph learning over facial action units.

Layers, ops, losses and the FACS vocabulary need torch and numpy alone:

    from aurel.layers import SelfAdjustingGCN, MultiDimensionalEdges
    from aurel.ops import knn_max_relative

Models, data, training, figures and commands need the extras of the distribution `aurel-au`.
"""

from __future__ import annotations

__distribution__ = "aurel-au"  # before the imports: `check_owner` reads it

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aurel.name_clash import warn_of_other

if TYPE_CHECKING:
    from aurel import layers as layers
    from aurel import losses as losses
    from aurel import models as models
    from aurel import ops as ops
    from aurel.ops.backend import use_backend
    from aurel.vision.read_faces import read_faces as read_faces

__version__ = "0.1.0"

warn_of_other()

__all__ = ["__version__", "use_backend"]

_LAZY = ("layers", "losses", "models", "ops")
_FUNCTIONS = {"read_faces": "aurel.vision.read_faces", "use_backend": "aurel.ops.backend"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a subpackage at its first use; torch, which most need, takes seconds."""
        if name in _LAZY:
            return import_module(f"aurel.{name}")
        if name in _FUNCTIONS:
            return getattr(import_module(_FUNCTIONS[name]), name)
        raise AttributeError(f"module 'aurel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_FUNCTIONS})
