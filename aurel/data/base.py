"""Base classes of the data sets, with the attributes that training reads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from torch.utils.data import Dataset

from aurel.facs import AUSet

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]


class AUDataset(Dataset[Sample]):
    """Base of data sets of images, or clips, with AU labels.

    Items are dicts of ``image``, ``labels`` and ``subject``, and of ``landmarks``, ``visible`` or
    ``intensity`` where they are known.

    Attributes:
        aus: the AUs of the label columns.
        labels: (M, N), of clips (M, T, N): 1 present, 0 absent, -1 unknown.
        subjects: the subject of each of the M items; training and test share none.
        intensity: (M, N) 0 to 5, -1 unknown; None where intensities are unknown.
        transform: function from a sample to a sample; None for the stored image.
        layout: where the labels and the pictures are, for the header of a run.
        notes: further lines for the header.
        unready: reason why the pictures cannot be read as they are; None where they can.
    """

    aus: AUSet
    labels: Tensor
    subjects: Sequence[str] | Sequence[int]
    intensity: Tensor | None = None
    transform: Transform | None
    layout: str = ""
    notes: Sequence[str] = ()
    unready: str | None = None

    def __len__(self) -> int:
        return len(self.subjects)

    def labels_of(self, items: Sequence[int]) -> Tensor:
        """Return the labels of these images, or of all frames of these clips, (M', N)."""
        return self.labels[items].reshape(-1, len(self.aus))

    def label_runs(self, items: Sequence[int]) -> list[Tensor]:
        """Return the labels of these items, one (T, N) table for each run of frames.

        Images that are no frames of a clip are together one table.
        """
        return [self.labels_of(items)]

    def keys_of(self, items: Sequence[int]) -> list[str]:
        """Return a name for each row of `labels_of`, as in "F001/T1/2440"."""
        rows = len(self.labels_of(items)) // max(len(items), 1)
        return [f"{self.subjects[item]}/{item}/{row}" for item in items for row in range(rows)]

    def pictures_of(self, items: Sequence[int]) -> list[Path]:
        """Return the files that these items are read from; none for data that are generated."""
        return []

    def for_scoring(self) -> Self:
        """Return the same data, divided into items as validation and test need them."""
        return copy.copy(self)

    def class_weights(self) -> Tensor:
        """Return the published class weights, (N,) float32.

        Raises:
            ValueError: the data set has no file of them.
            FileNotFoundError: the file is missing.
        """
        raise ValueError(
            f"data.class_weights must be labels or none, got file: {type(self).__name__} has no "
            "file of class weights"
        )


class TripletDataset(Dataset[Sample]):
    """Base of data sets of triplets of faces.

    Items are dicts of ``image`` (3, 3, S, S), the odd face last, and ``margin``.

    Attributes:
        aus: the AUs by which the faces are compared; unnamed where they are unknown.
        subjects: the subjects of all triplets, each once.
    """

    aus: AUSet
    subjects: Sequence[str]
    layout: str = ""
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        raise NotImplementedError
