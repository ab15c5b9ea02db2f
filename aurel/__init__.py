"""AUREL: graph learning over facial action units.

Layers, ops, losses and the FACS vocabulary need torch and numpy alone:

    from aurel.layers import SelfAdjustingGCN, MultiDimensionalEdges
    from aurel.ops import knn_max_relative

Models, data, training, pictures and commands come with the extras of the distribution `aurel-au`.
"""

from __future__ import annotations

__distribution__ = "aurel-au"  # before the imports: `check_owner` reads it

from aurel.name_clash import warn_of_other
from aurel.ops.backend import use_backend

__version__ = "0.1.0"

warn_of_other()

__all__ = ["__version__", "use_backend"]
