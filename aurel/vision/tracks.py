"""Number the people of a video: a face keeps its number from frame to frame and across gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurel.vision.face_detector import Face, overlap

OVERLAP = 0.3
"""Least intersection over union of two boxes of one face."""


@dataclass
class _Person:
    number: int
    face: Face
    time: float


class FaceTracker:
    """Gives each face of a video the number of its person, from 0 in the order of appearance.

    Faces and the people of the frame before and of the last second are paired greedily: first by
    decreasing overlap of their boxes (at least 0.3), then by increasing distance of their centers,
    if this is at most `reach` times the side of the box before and the sizes differ by less than a
    factor of 2. No person is in a frame twice. Appearance is not compared: people who change places
    while they are hidden change numbers, and who returns later gets a new number.

    Args:
        patience: seconds after which a face that was lost is a new person.
        reach: largest distance between the centers, as a multiple of the side of the box.

    Source: the overlap criterion is that of Bochinski et al., "High-speed tracking-by-detection
    without using image information", AVSS 2017.
    """

    def __init__(self, patience: float = 1.0, reach: float = 1.0) -> None:
        self.patience = patience
        self.reach = reach
        self._people: list[_Person] = []
        self._count = 0
        self._before = 0.0

    def update(self, faces: Sequence[Face], time: float) -> list[int]:
        """Return the number of each face of the next frame.

        Args:
            faces: the faces of the frame.
            time: seconds from the start of the video.
        """
        oldest = min(self._before, time - self.patience)
        self._people = [person for person in self._people if person.time >= oldest]
        self._before = time
        pairs = [
            (*cost, i, j)
            for i, person in enumerate(self._people)
            for j, face in enumerate(faces)
            if (cost := self._cost(person.face, face)) is not None
        ]
        numbers: dict[int, int] = {}
        used: set[int] = set()
        for _, _, i, j in sorted(pairs):
            if i not in used and j not in numbers:
                used.add(i)
                numbers[j] = self._people[i].number
                self._people[i] = _Person(numbers[j], faces[j], time)
        for j, face in enumerate(faces):
            if j not in numbers:
                numbers[j] = self._count
                self._people.append(_Person(self._count, face, time))
                self._count += 1
        return [numbers[j] for j in range(len(faces))]

    def _cost(self, before: Face, now: Face) -> tuple[int, float] | None:
        shared = overlap(before, now)
        if shared >= OVERLAP:
            return 0, -shared
        old, new = max(before.width, before.height), max(now.width, now.height)
        away = float(np.hypot(*np.subtract(before.center, now.center)))
        if away <= self.reach * old and old / 2 < new < 2 * old:
            return 1, away
        return None
