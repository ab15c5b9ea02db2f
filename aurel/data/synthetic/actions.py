"""Intensities of the action units that a face can show, by number and by side."""

from __future__ import annotations

from dataclasses import dataclass

from aurel.data.synthetic.arrays import Array

SHOWN_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43)
"""FACS numbers of the AUs that the faces show, in the order of their intensities."""

COLUMN = {au: column for column, au in enumerate(SHOWN_AUS)}


@dataclass(frozen=True)
class Actions:
    """Intensities in 0..1, (n, 18, 2); the last axis is (image left, image right)."""

    values: Array

    def __getitem__(self, au: int) -> Array:
        """Return one unit on both sides, (n, 2)."""
        return self.values[:, COLUMN[au]]

    def mean(self, au: int) -> Array:
        """Return one unit averaged over the sides, (n,)."""
        return self.values[:, COLUMN[au]].mean(1)
