"""The examples of `knn_graph`, under the name by which `report` lists them."""

from __future__ import annotations

from aurel_kernels.knn_graph import examples

__all__ = ["examples"]
