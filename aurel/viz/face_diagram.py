"""Draw the outline of a face, and compute the position of each action unit on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aurel.facs import AUSet
from aurel.viz.figure import GRAY, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]

# Positions on the person's left side, which is the viewer's right; y grows upward, and the face is
# about two units wide. AUs on the midline have x = 0.
_ANCHORS: dict[int, Point] = {
    1: (0.15, 0.70),
    2: (0.56, 0.72),
    4: (0.11, 0.47),
    5: (0.37, 0.41),
    6: (0.60, 0.06),
    7: (0.66, 0.28),
    8: (0.10, -0.40),
    9: (0.12, 0.20),
    10: (0.20, -0.19),
    11: (0.38, -0.10),
    12: (0.46, -0.33),
    13: (0.55, -0.20),
    14: (0.62, -0.46),
    15: (0.42, -0.63),
    16: (0.20, -0.66),
    17: (0.0, -0.88),
    18: (0.12, -0.36),
    19: (0.0, -0.56),
    20: (0.66, -0.60),
    21: (0.45, -1.15),
    22: (0.22, -0.36),
    23: (0.26, -0.45),
    24: (0.09, -0.51),
    25: (0.0, -0.42),
    26: (0.24, -0.93),
    27: (0.0, -0.72),
    28: (0.18, -0.52),
    29: (0.0, -1.0),
    30: (0.40, -0.88),
    31: (0.78, -0.50),
    32: (0.15, -0.56),
    33: (0.70, -0.30),
    34: (0.72, -0.38),
    35: (0.66, -0.36),
    36: (0.30, -0.74),
    37: (0.28, -0.58),
    38: (0.20, 0.02),
    39: (0.07, 0.05),
    41: (0.30, 0.36),
    42: (0.44, 0.30),
    43: (0.37, 0.29),
    44: (0.50, 0.24),
    45: (0.30, 0.27),
    46: (0.24, 0.30),
}


def anchors(aus: AUSet) -> list[list[Point]]:
    """Return the positions of each AU: two, or one for a lateral AU or an AU on the midline.

    The person's left is on the viewer's right; x grows to the right, y upward.

    Raises:
        ValueError: the set is unnamed.
    """
    aus.require_named("a face diagram")
    points = []
    for number, side in zip(aus.numbers, aus.sides, strict=True):
        x, y = _ANCHORS[number]
        # A lateral AU on the midline is moved a little to its side.
        x = max(x, 0.1) if side else x
        both = [(-x, y), (x, y)] if x else [(0.0, y)]
        points.append({"": both, "L": both[-1:], "R": both[:1]}[side])
    return points


def spread(points: Sequence[Point], distance: float) -> NDArray[np.float64]:
    """Move points as little as possible until no two are nearer than `distance`.

    Args:
        points: (P, 2).
        distance: in the units of the points.

    Returns:
        The new points, (P, 2); mirrored points stay mirrored.
    """
    placed = np.array(points, dtype=np.float64).reshape(-1, 2)
    # Points at the same position move up and down, in the same way on both sides of the face.
    order = np.arange(len(placed))
    vertical = np.sign(order[None] - order[:, None])
    for _ in range(500):
        between = placed[:, None] - placed[None]
        length = np.linalg.norm(between, axis=-1)
        np.fill_diagonal(length, np.inf)
        overlap = np.clip(distance - length, 0, None)
        if overlap.max(initial=0.0) < 1e-4:
            break
        direction = between / np.maximum(length, 1e-9)[..., None]
        direction[..., 1] += np.where(length < 1e-9, vertical, 0)
        placed += 0.5 * (overlap[..., None] * direction).sum(1)
    return placed


def draw_face(axes: Axes) -> None:
    """Draw the outline of a face, two units wide, into empty axes."""
    turn = np.linspace(0, 2 * np.pi, 200)
    down = np.clip(-np.cos(turn), 0, 1)
    axes.plot(
        0.95 * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (1 - 0.22 * down) * (1 - 0.1 * down),
        0.04 + np.where(np.cos(turn) > 0, 1.12, 1.14) * np.cos(turn),
        color=GRAY,
        linewidth=1.6,
    )
    line: dict[str, Any] = {"color": GRAY, "linewidth": 1.2, "solid_capstyle": "round"}
    t = np.linspace(0, 1, 40)
    for side in (-1, 1):
        axes.plot(side * (0.17 + 0.43 * t), 0.545 + 0.09 * np.sin(np.pi * t**0.8), **line)
        for lid in (0.085, -0.06):
            axes.plot(side * (0.22 + 0.30 * t), 0.29 + lid * np.sin(np.pi * t), **line)
        axes.plot(
            side * 0.37 + 0.055 * np.sin(turn), 0.295 + 0.055 * np.cos(turn), color=PALE, lw=1.2
        )
        axes.plot(side * (0.07 + 0.10 * t**2), 0.30 - 0.32 * t, color=PALE, linewidth=1.2)
        axes.plot(side * (0.17 - 0.11 * t), -0.02 - 0.05 * np.sin(np.pi * t), **line)
        axes.plot(side * (0.95 + 0.08 * np.sin(np.pi * t)), 0.30 - 0.42 * t, **line)
        axes.plot(side * 0.36 * t, -0.375 + 0.03 * np.cos(5.5 * t) - 0.05 * t**2, **line)
        axes.plot(side * 0.36 * t, -0.43 - 0.012 * np.cos(3 * t) + 0.006, color=PALE, lw=1.2)
        axes.plot(side * 0.36 * t, -0.54 + 0.135 * t**3, **line)
    axes.set_aspect("equal")
    axes.axis("off")
