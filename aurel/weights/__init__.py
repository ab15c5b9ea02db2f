"""Released weights by name: list them, download them once, find them in the cache."""

from __future__ import annotations

from aurel.weights.entry import Weights
from aurel.weights.fetch import find, get, path
from aurel.weights.registry import list_weights, weights_info

__all__ = ["Weights", "find", "get", "list_weights", "path", "weights_info"]
