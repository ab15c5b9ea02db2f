"""Draw an adjacency matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aurel.viz.figure import INK, PALE, is_symmetric, new_figure, save_figure, square_matrix

_MOST_PRINTED = 20


def draw_adjacency(
    adjacency: Any,
    names: Sequence[str],
    path: Path | str,
    title: str | None = None,
    *,
    weight: str = "weight",
) -> None:
    """Draw a weighted adjacency as a matrix of colors, with numbers for up to 20 nodes.

    Args:
        adjacency: (N, N) array or tensor; [i, j] is the weight of the edge from node j to node i.
        names: N names.
        path: .png, .pdf or .svg.
        title: text above the picture.
        weight: what the numbers are, beside the scale of colors.

    A NaN, where nothing is known, is a pale cell with a dash.

    Raises:
        ValueError: the adjacency is not (N, N), or infinite.
    """
    weights = square_matrix(adjacency, names)
    count = len(names)
    side = max(4.0, min(0.55 * count, 12.0))
    figure = new_figure(side + 1.8, side + 0.8)
    axes = figure.add_subplot()
    known = weights[~np.isnan(weights)]
    low, high = float(known.min(initial=0.0)), float(known.max(initial=0.0))
    signed = low < 0
    most = max(-low, high)
    limits = (-most, most) if signed else (0.0, high or 1.0)
    axes.set_facecolor(PALE)
    image = axes.imshow(
        weights, cmap="PuOr" if signed else "cividis", vmin=limits[0], vmax=limits[1]
    )
    axes.set_xticks(range(count), names, rotation=90, fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    if not is_symmetric(weights):
        axes.set_xlabel("source node", color=INK)
        axes.set_ylabel("target node", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= _MOST_PRINTED:
        for i, j in np.ndindex(weights.shape):
            r, g, b, _ = image.cmap(image.norm(weights[i, j]))
            dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.55 and not np.isnan(weights[i, j])
            axes.text(
                j,
                i,
                _short(float(weights[i, j])),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if dark else "black",
            )
    figure.colorbar(image, ax=axes, shrink=0.8, label=weight)
    if title:
        axes.set_title(title, color=INK, fontsize=12)
    save_figure(figure, path)


def _short(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3g}"
