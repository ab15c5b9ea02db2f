"""Procedural faces in numpy whose action units occur together as they do in BP4D or DISFA."""

from __future__ import annotations

from aurel.data.synthetic.actions import ACTION_UNITS
from aurel.data.synthetic.dataset import SyntheticClips, SyntheticFaces
from aurel.data.synthetic.label_model import LabelWorld, label_world

__all__ = ["ACTION_UNITS", "LabelWorld", "SyntheticClips", "SyntheticFaces", "label_world"]
