"""Data sets: procedural faces, and readers of the authors' list files."""

from __future__ import annotations

from aurel.data.lists import ListDataset
from aurel.data.synthetic import SyntheticClips, SyntheticFaces
from aurel.data.transforms import EvalTransform, TrainTransform

__all__ = ["EvalTransform", "ListDataset", "SyntheticClips", "SyntheticFaces", "TrainTransform"]
