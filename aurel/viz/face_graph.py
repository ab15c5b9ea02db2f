"""A graph of action units drawn on a face."""

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
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    FancyArrowPatch,
    Line2D,
    is_symmetric,
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
    adjacency: Any,
    names: Sequence[str],
    path: Path | str,
    title: str | None = None,
    *,
    weight: str = "weight",
    opacity: Any = None,
) -> None:
    """Draw a weighted graph of AUs on a face.

    An AU that both sides of the face show is drawn on both, with its edges. A line's width and
    darkness grow with the larger weight of its two directions; an arrowhead points at the AU that
    listens, at both ends where the weaker direction has at least half the weight of the other; a
    symmetric adjacency has none. Of a dense graph the strongest lines are drawn, two a node and 40
    at most (more where they tie); the caption says so. Loops are left out. Where the names are not
    AUs, the nodes are placed on a circle.

    Args:
        adjacency: (N, N) array or tensor; row i holds the weights with which i listens to others.
            Negative ones are orange. NaN is no edge; a node with nothing else is drawn hollow.
        names: N names such as "AU12" or "AU12L".
        path: .png, .pdf or .svg.
        title: a line above the picture.
        weight: what a weight is, in the legend.
        opacity: (N, N) from 0 to 1, how certain each weight is. A line is then as dark as its
            weight is certain, and its width alone shows the weight.

    Raises:
        ValueError: the adjacency is not (N, N), or infinite.
    """
    weights = square_matrix(adjacency, names)
    certain = None if opacity is None else square_matrix(opacity, names)
    directed = not is_symmetric(weights)
    unknown, weights = _without_weights(weights), np.nan_to_num(weights)
    edges, total = strongest_edges(weights, min(_EDGES_A_NODE * len(names), _MOST_EDGES))
    figure = new_figure(7.2, 8.2, layout=None)
    axes = figure.add_axes((0.02, 0.09, 0.96, 0.85))
    aus = _as_aus(names)
    if aus is None:
        places, colors = _on_circle(axes, len(names)), [SKY] * len(names)
    else:
        draw_face(axes)
        places = _on_face(axes, aus)
        colors = [_REGION_COLORS[region] for region in aus.regions()]
    for i, j, size in edges:
        strength = _strength(size, edges)
        dark = strength if certain is None else float(certain[i, j])
        _draw_edge(axes, places, weights, i, j, strength, dark, directed)
    labels = [name if aus is None else name.removeprefix("AU") for name in names]
    for label, points, color, hollow in zip(labels, places, colors, unknown, strict=True):
        for x, y in points:
            _draw_node(axes, x, y, label, None if hollow else color)
    caption = ["an arrowhead points at the target"] * (directed and len(edges) > 0)
    caption += ["fainter: less certain"] * (certain is not None and len(edges) > 0)
    caption += ["dashed: without any known weight"] * bool(unknown.any())
    _draw_legend(figure, aus is not None, edges, total, weight, caption, certain is None)
    if title:
        figure.text(0.5, 0.97, title, ha="center", va="center", color=INK, fontsize=13)
    save_figure(figure, path)


def _without_weights(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which nodes have NaN to all others."""
    unknown = np.asarray((np.isnan(weights) | np.eye(len(weights), dtype=bool)).all(1))
    return unknown & (len(weights) > 1)


def strongest_edges(
    weights: NDArray[np.float64], most: int
) -> tuple[list[tuple[int, int, float]], int]:
    """Return the strongest pairs (i, j, weight), weakest first, and how many pairs there are.

    The weight of a pair is that of its stronger direction. Pairs as strong as the last of the
    `most` strongest are kept too.
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
    """Return how strong a line to draw: 1 for the strongest edge, down to 0.15 for the weakest.

    Where the weights differ by little, so do the lines.
    """
    weakest, strongest = abs(edges[0][2]), abs(edges[-1][2])
    span = max(strongest - weakest, 0.2 * strongest)
    return 1 - 0.85 * (strongest - abs(weight)) / span


def _as_aus(names: Sequence[str]) -> AUSet | None:
    try:
        return AUSet.of(list(names))
    except ValueError:
        return None


def _on_circle(axes: Axes, count: int) -> list[list[Point]]:
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.12)
    turns = 2 * np.pi * np.arange(count) / max(count, 1)
    return [[(float(np.sin(turn)), float(np.cos(turn)))] for turn in turns]


def _on_face(axes: Axes, aus: AUSet) -> list[list[Point]]:
    """Return where the nodes go, and join those that had to make room to their true places."""
    true = anchors(aus)
    flat = [point for points in true for point in points]
    placed = spread(flat, 0.155)
    for (x, y), (px, py) in zip(flat, placed, strict=True):
        if np.hypot(px - x, py - y) > 0.09:
            axes.plot([x, px], [y, py], color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    points = iter([(float(x), float(y)) for x, y in placed])
    return [[next(points) for _ in own] for own in true]


def _draw_edge(
    axes: Axes,
    places: Sequence[Sequence[Point]],
    weights: NDArray[np.float64],
    i: int,
    j: int,
    strength: float,
    darkness: float,
    directed: bool,
) -> None:
    to_i, to_j = abs(weights[i, j]), abs(weights[j, i])
    heads = ("<" if to_i >= 0.5 * to_j else "") + "-" + (">" if to_j >= 0.5 * to_i else "")
    arrow = f"{heads},head_length=3,head_width=1.6" if directed else "-"
    sign = weights[i, j] if to_i >= to_j else weights[j, i]
    for start, end in _same_side(places[i], places[j]):
        # Lines bend away from the midline, so that the two halves mirror each other.
        bend = 0.18 if (start[0] + end[0] >= 0) == (start[1] >= end[1]) else -0.18
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle=arrow,
                shrinkA=11,
                shrinkB=11,
                color=BLUE if sign > 0 else VERMILION,
                linewidth=0.4 + 2.2 * strength,
                alpha=0.2 + 0.7 * darkness,
                zorder=2,
            )
        )


def _same_side(first: Sequence[Point], second: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Pair the places of two AUs: each with the nearest of the other, no pair twice."""
    pairs = {(a, min(second, key=lambda b: np.hypot(a[0] - b[0], a[1] - b[1]))) for a in first}
    if len(second) > len(first):
        pairs = {(min(first, key=lambda a: np.hypot(a[0] - b[0], a[1] - b[1])), b) for b in second}
    return sorted(pairs)


def _draw_node(axes: Axes, x: float, y: float, label: str, color: str | None) -> None:
    """Draw a node; a dashed outline where it has no color."""
    box: dict[str, Any] = {"boxstyle": "circle,pad=0.28", "lw": 1.2}
    box |= {"facecolor": color, "edgecolor": "white"}
    if color is None:
        box |= {"facecolor": "white", "edgecolor": GREY, "linestyle": (0, (2, 2))}
    axes.text(
        x,
        y,
        label,
        ha="center",
        va="center",
        fontsize=8.5 if len(label) <= 2 else 7,
        color=GREY if color is None else INK,
        zorder=4,
        bbox=box,
    )


def _draw_legend(
    figure: Figure,
    on_face: bool,
    edges: Sequence[tuple[int, int, float]],
    total: int,
    weight: str,
    notes: Sequence[str],
    fading: bool,
) -> None:
    handles: list[Any] = []
    if on_face:
        handles += [
            Line2D([], [], marker="o", ls="", color=color, markersize=9, label=f"{region} face")
            for region, color in _REGION_COLORS.items()
        ]
    for size in _examples([edge[2] for edge in edges]):
        strength = _strength(size, edges)
        handles.append(
            Line2D(
                [],
                [],
                color=BLUE if size > 0 else VERMILION,
                lw=0.4 + 2.2 * strength,
                alpha=0.2 + 0.7 * (strength if fading else 1),
                label=f"{weight} {size:.3g}",
            )
        )
    shown = f"{len(edges)} strongest of {total} edges" if len(edges) < total else f"{total} edges"
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=3 if len(handles) > 5 else max(1, len(handles)),
        frameon=False,
        fontsize=9,
        title="; ".join([shown, *notes]),
        title_fontsize=9,
    )


def _examples(weights: Sequence[float]) -> list[float]:
    """Return the weakest weight, and the strongest of each sign; weights are weakest first."""
    strongest = [
        part[-1] for part in ([w for w in weights if w > 0], [w for w in weights if w < 0]) if part
    ]
    return list(dict.fromkeys([*weights[:1], *strongest]))
