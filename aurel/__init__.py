"""AUREL: graph learning over facial action units.

Layers, ops, losses and the FACS vocabulary need torch and numpy alone:

    from aurel.layers import SelfAdjustingGCN, MultiDimensionalEdges
    from aurel.ops import knn_max_relative

Models, data, training, pictures and commands come with the extras of the distribution `aurel-au`.
"""

from __future__ import annotations

from aurel.ops.backend import use_backend

__version__ = "0.1.0"

__all__ = ["__version__", "use_backend"]
