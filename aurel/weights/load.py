"""The loading of released weights into a model, which is in `aurel.models`."""

from __future__ import annotations

from aurel.models.released import load_weights

__all__ = ["load_weights"]
