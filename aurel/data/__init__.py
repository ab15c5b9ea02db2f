"""Data sets: procedural faces, and readers of the authors' list files.

The faces need only torch and numpy; readers of pictures are imported at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aurel.data.registry import (
    DatasetInfo,
    NoSuchPart,
    dataset_info,
    list_datasets,
    register_dataset,
)
from aurel.data.synthetic import SyntheticClips, SyntheticFaces

__all__ = [
    "AffWild2Faces",
    "DatasetInfo",
    "EvalTransform",
    "ListClips",
    "ListDataset",
    "NoSuchPart",
    "SyntheticClips",
    "SyntheticFaces",
    "TrainTransform",
    "dataset_info",
    "list_datasets",
    "register_dataset",
]

_READERS = {
    "AffWild2Faces": "aurel.data.aff_wild2",
    "ListClips": "aurel.data.clips",
    "ListDataset": "aurel.data.lists",
    "EvalTransform": "aurel.data.transforms",
    "TrainTransform": "aurel.data.transforms",
}


def __getattr__(name: str) -> Any:
    if name in _READERS:
        return getattr(import_module(_READERS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
