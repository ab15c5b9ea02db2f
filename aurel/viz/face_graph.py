"""Draw a graph of action units on a face."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aurel.facs import AUSet
from aurel.viz.face_diagram import Point, anchors, draw_face, spread
from aurel.viz.figure import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    FancyArrowPatch,
    Line2D,
    new_figure,
    save_figure,
    square_matrix,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REGION_COLORS = {"upper": SKY, "middle": GREEN, "lower": ORANGE}
_EDGES_A_NODE, _MOST_EDGES = 2, 40


def draw_face_graph(
    adjacency: Any, names: Sequence[str], path: Path | str, title: str | None = None
) -> None:
    """Draw a weighted graph of AUs on a face.

    An AU that occurs on both sides of the face is drawn on both sides, with its edges. One line
    stands for both directions: its width and darkness grow with the larger of the two weights, and
    its arrowhead points to the target of that edge, or there is one at both ends if the smaller
    weight is at least half of the larger. At most two lines per node and 40 in all are drawn (more
    if weights are equal), those with the largest weights; the caption gives their number. Loops are
    omitted. If the names are not AUs, the nodes are placed on a circle.

    Args:
        adjacency: (N, N) array or tensor; [i, j] is the weight of the edge from j to i. Negative
            weights are drawn in orange.
        names: N names such as "AU12" or "AU12L".
        path: .png, .pdf or .svg.
        title: text above the picture.

    Raises:
        ValueError: the adjacency is not (N, N) or not finite.
    """
    weights = square_matrix(adjacency, names)
    edges, total = strongest_edges(weights, min(_EDGES_A_NODE * len(names), _MOST_EDGES))
    figure = new_figure(7.2, 8.2, layout=None)
    axes = figure.add_axes((0.02, 0.09, 0.96, 0.85))
    aus = _as_aus(names)
    if aus is None:
        places, colors = _circle(len(names)), [SKY] * len(names)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.margins(0.12)
    else:
        draw_face(axes)
        places = _on_face(axes, aus)
        colors = [_REGION_COLORS[region] for region in aus.regions()]
    for i, j, weight in edges:
        _draw_edge(axes, places, weights, i, j, _strength(weight, edges))
    for name, points, color in zip(names, places, colors, strict=True):
        for x, y in points:
            _draw_node(axes, x, y, name if aus is None else name.removeprefix("AU"), color)
    _draw_legend(figure, aus is not None, edges, total)
    if title:
        figure.text(0.5, 0.97, title, ha="center", va="center", color=INK, fontsize=13)
    save_figure(figure, path)


def strongest_edges(
    weights: NDArray[np.float64], most: int
) -> tuple[list[tuple[int, int, float]], int]:
    """Return the strongest pairs (i, j, weight), weakest first, and the number of all pairs.

    The weight of a pair is the one of its stronger direction. Pairs whose weight equals that of the
    last of the `most` strongest are included.
    """
    pairs = []
    for i, j in combinations(range(len(weights)), 2):
        weight = max(weights[i, j], weights[j, i], key=abs)
        if weight:
            pairs.append((i, j, float(weight)))
    pairs.sort(key=lambda pair: abs(pair[2]))
    least = abs(pairs[-most][2]) if len(pairs) > most else 0.0
    return [pair for pair in pairs if abs(pair[2]) >= least], len(pairs)


def _strength(weight: float, edges: Sequence[tuple[int, int, float]]) -> float:
    """Return the strength of a line: 1 for the strongest edge, down to 0.15 for the weakest.

    If the weights differ little, the lines differ little.
    """
    weakest, strongest = abs(edges[0][2]), abs(edges[-1][2])
    span = max(strongest - weakest, 0.2 * strongest)
    return 1 - 0.85 * (strongest - abs(weight)) / span


def _as_aus(names: Sequence[str]) -> AUSet | None:
    try:
        return AUSet.of(list(names))
    except ValueError:
        return None


def _circle(count: int) -> list[list[Point]]:
    turns = 2 * np.pi * np.arange(count) / max(count, 1)
    return [[(float(np.sin(turn)), float(np.cos(turn)))] for turn in turns]


def _on_face(axes: Axes, aus: AUSet) -> list[list[Point]]:
    """Return the positions of the nodes, and draw a line from each moved node to its AU."""
    true = anchors(aus)
    flat = [point for points in true for point in points]
    placed = spread(flat, 0.155)
    for (x, y), (px, py) in zip(flat, placed, strict=True):
        if np.hypot(px - x, py - y) > 0.09:
            axes.plot([x, px], [y, py], color=GRAY, linewidth=0.7, linestyle=":", zorder=1)
    points = iter([(float(x), float(y)) for x, y in placed])
    return [[next(points) for _ in own] for own in true]


def _draw_edge(
    axes: Axes,
    places: Sequence[Sequence[Point]],
    weights: NDArray[np.float64],
    i: int,
    j: int,
    strength: float,
) -> None:
    to_i, to_j = abs(weights[i, j]), abs(weights[j, i])
    heads = ("<" if to_i >= 0.5 * to_j else "") + "-" + (">" if to_j >= 0.5 * to_i else "")
    sign = weights[i, j] if to_i >= to_j else weights[j, i]
    for start, end in _same_side(places[i], places[j]):
        # Curve lines away from the midline, so that the two halves are mirror images.
        bend = 0.18 if (start[0] + end[0] >= 0) == (start[1] >= end[1]) else -0.18
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle=f"{heads},head_length=3,head_width=1.6",
                shrinkA=11,
                shrinkB=11,
                color=BLUE if sign > 0 else VERMILION,
                linewidth=0.4 + 2.2 * strength,
                alpha=0.2 + 0.7 * strength,
                zorder=2,
            )
        )


def _same_side(first: Sequence[Point], second: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Return pairs of positions of two AUs: each with the nearest of the other, without repeats."""
    pairs = {(a, min(second, key=lambda b: np.hypot(a[0] - b[0], a[1] - b[1]))) for a in first}
    if len(second) > len(first):
        pairs = {(min(first, key=lambda a: np.hypot(a[0] - b[0], a[1] - b[1])), b) for b in second}
    return sorted(pairs)


def _draw_node(axes: Axes, x: float, y: float, label: str, color: str) -> None:
    axes.text(
        x,
        y,
        label,
        ha="center",
        va="center",
        fontsize=8.5 if len(label) <= 2 else 7,
        color=INK,
        zorder=4,
        bbox={"boxstyle": "circle,pad=0.28", "facecolor": color, "edgecolor": "white", "lw": 1.2},
    )


def _draw_legend(
    figure: Figure, on_face: bool, edges: Sequence[tuple[int, int, float]], total: int
) -> None:
    handles: list[Any] = []
    if on_face:
        handles += [
            Line2D([], [], marker="o", ls="", color=color, markersize=9, label=f"{region} face")
            for region, color in _REGION_COLORS.items()
        ]
    for weight in dict.fromkeys(edge[2] for edge in edges[:: max(1, len(edges) - 1)]):
        strength = _strength(weight, edges)
        handles.append(
            Line2D(
                [],
                [],
                color=BLUE if weight > 0 else VERMILION,
                lw=0.4 + 2.2 * strength,
                alpha=0.2 + 0.7 * strength,
                label=f"weight {weight:.3g}",
            )
        )
    shown = f"{len(edges)} strongest of {total} edges" if len(edges) < total else f"{total} edges"
    if edges:
        shown += "; edges point from the source AU to the AU that receives its message"
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=max(1, len(handles)),
        frameon=False,
        fontsize=9,
        title=shown,
        title_fontsize=9,
    )
