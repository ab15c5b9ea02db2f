"""Procedural faces in numpy, with the joint statistics of AUs of BP4D, DISFA or EmotioNet."""

from __future__ import annotations

import warnings
from typing import Any

from aurel.data.synthetic.actions import SHOWN_AUS
from aurel.data.synthetic.dataset import SyntheticClips, SyntheticFaces
from aurel.data.synthetic.label_model import LabelWorld, label_world

__all__ = ["SHOWN_AUS", "LabelWorld", "SyntheticClips", "SyntheticFaces", "label_world"]


def __getattr__(name: str) -> Any:
    if name == "ACTION_UNITS":
        warnings.warn(
            "aurel.data.synthetic.ACTION_UNITS is called SHOWN_AUS now", DeprecationWarning, 2
        )
        return SHOWN_AUS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
