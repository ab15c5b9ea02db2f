"""Choose the person of a video that shows one, among all faces that were found in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

SIZES = 2.0
"""Largest ratio of the sizes of two tracks of one person."""


def main_person(faces: Iterable[tuple[int, int, float]]) -> set[int]:
    """Return the tracks of the person with the largest faces.

    The track with the largest sum of areas is that person's. A person who was hidden has several
    tracks: further ones, in the order of this sum, are taken if they are in no frame of those taken
    before, and if the median side of their boxes differs by less than a factor of 2 from the first.

    Args:
        faces: number of the frame, number of the track, and side of the box of each face.
    """
    sides: dict[int, dict[int, float]] = defaultdict(dict)
    for frame, track, side in faces:
        sides[track][frame] = side
    area = {track: sum(side**2 for side in of.values()) for track, of in sides.items()}
    size = {track: float(np.median(list(of.values()))) for track, of in sides.items()}
    order = sorted(sides, key=lambda track: (-area[track], track))
    taken: set[int] = set()
    frames: set[int] = set()
    for track in order:
        ratio = size[track] / size[order[0]]
        if frames.isdisjoint(sides[track]) and 1 / SIZES < ratio < SIZES:
            taken.add(track)
            frames |= sides[track].keys()
    return taken
