"""Draw training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aurel.viz.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    MaxNLocator,
    new_figure,
    save_figure,
)

_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
_STYLES = ("-", "--", ":")


def draw_curves(history: Mapping[str, Sequence[float]], path: Path | str) -> None:
    """Draw the values of each epoch: losses on the left, other scores on the right.

    Args:
        history: the values of each name, one for each epoch. A name that contains "loss" is a
            loss; "epoch" is ignored. NaN leaves a gap.
        path: .png, .pdf or .svg.

    Raises:
        ValueError: `history` has no values.
    """
    curves = {name: values for name, values in history.items() if name != "epoch" and len(values)}
    if not curves:
        raise ValueError("history must have at least one value, got none")
    losses = {name: values for name, values in curves.items() if "loss" in name}
    scores = {name: values for name, values in curves.items() if name not in losses}
    panels = [(label, part) for label, part in (("loss", losses), ("score", scores)) if part]
    figure = new_figure(5.2 * len(panels), 3.8)
    for number, (label, part) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for index, (name, values) in enumerate(part.items()):
            axes.plot(
                np.arange(1, len(values) + 1),
                np.asarray(values, dtype=float),
                color=_COLORS[index % len(_COLORS)],
                linestyle=_STYLES[index // len(_COLORS) % len(_STYLES)],
                marker="o",
                markersize=3,
                linewidth=1.6,
                label=name,
            )
        axes.set_xlabel("epoch", color=INK)
        axes.set_ylabel(label, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=PALE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
