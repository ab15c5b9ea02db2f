"""Intensities of the action units that a face can show, by number and by side."""

from __future__ import annotations

from dataclasses import dataclass

from aurel.data.synthetic.arrays import Array

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43)
COLUMN = {au: column for column, au in enumerate(ACTION_UNITS)}


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
