"""Draw a graph of action units on a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    An AU that occurs on both sides of the face is drawn on both sides, with its edges. One line
    stands for both directions: its width and darkness grow with the larger of the two weights, and
    its arrowhead points to the target of that edge, or there is one at both ends if the smaller
    weight is at least half of the larger; a symmetric adjacency has none. At most two lines per
    node and 40 in all are drawn (more if weights are equal), those with the largest weights; the
    caption gives their number. Loops are omitted. If the names are not AUs, the nodes are placed on
    a circle.

    Args:
        adjacency: (N, N) array or tensor; [i, j] is the weight of the edge from j to i. Negative
            weights are drawn in orange. NaN is no edge; a node without any other weight, such as an
            AU that never occurs, is drawn hollow.
        names: N names such as "AU12" or "AU12L".
        path: .png, .pdf or .svg.
        title: text above the picture.
        weight: what a weight is, in the legend.
        opacity: (N, N) from 0 to 1, how certain each weight is. A line is then as dark as its
            weight is certain, and its width alone shows the weight.

    Raises:
        ValueError: the adjacency is not (N, N), or infinite.
    """
    certain = None if opacity is None else square_matrix(opacity, names)
    graph = _Graph.of(square_matrix(adjacency, names), names, certain)
    figure = new_figure(7.2, 8.2, layout=None)
    axes = figure.add_axes((0.02, 0.09, 0.96, 0.85))
    on_face = _draw_graph(axes, graph, names, graph.edges)
    notes = {
        "edges point from the source AU to the AU that receives its message": graph.directed
        and bool(graph.edges),
        "fainter: less certain": opacity is not None and bool(graph.edges),
        "dashed: without any known weight": bool(graph.unknown.any()),
    }
    caption = [_shown(graph), *(text for text, applies in notes.items() if applies)]
    _draw_legend(figure, on_face, graph.edges, weight, caption, opacity is None)
    if title:
        figure.text(0.5, 0.97, title, ha="center", va="center", color=INK, fontsize=13)
    save_figure(figure, path)


def draw_face_graphs(
    adjacencies: Mapping[str, Any],
    names: Sequence[str],
    path: Path | str,
    *,
    weight: str = "weight",
) -> None:
    """Draw graphs of the same AUs on faces side by side, each under its title.

    As `draw_face_graph`; a weight has the same width and darkness in every graph.

    Args:
        adjacencies: (N, N) arrays or tensors by title, at least one.
        names: N names such as "AU12" or "AU12L".
        path: .png, .pdf or .svg.
        weight: what a weight is, in the legend.

    Raises:
        ValueError: an adjacency is not (N, N), or infinite, or there is none.
    """
    if not adjacencies:
        raise ValueError("adjacencies must hold at least one graph, got none")
    graphs = {
        title: _Graph.of(square_matrix(adjacency, names), names, None)
        for title, adjacency in adjacencies.items()
    }
    scale = sorted((e for g in graphs.values() for e in g.edges), key=lambda edge: abs(edge[2]))
    count = len(graphs)
    figure = new_figure(5.2 * count, 6.1, layout=None)
    for index, (title, graph) in enumerate(graphs.items()):
        axes = figure.add_axes((index / count, 0.1, 1 / count, 0.84))
        on_face = _draw_graph(axes, graph, names, scale)
        axes.set_title(title, color=INK, fontsize=13)
    caption = [_shown(graphs[next(iter(graphs))]) + " in each graph"]
    _draw_legend(figure, on_face, scale, weight, caption, True)
    save_figure(figure, path)


@dataclass(frozen=True)
class _Graph:
    """A weighted graph as it is drawn: its strongest edges, weakest first, and their number."""

    weights: NDArray[np.float64]
    certain: NDArray[np.float64] | None
    unknown: NDArray[np.bool_]
    directed: bool
    edges: list[tuple[int, int, float]]
    total: int

    @classmethod
    def of(
        cls,
        adjacency: NDArray[np.float64],
        names: Sequence[str],
        certain: NDArray[np.float64] | None,
    ) -> _Graph:
        unknown = (np.isnan(adjacency) | np.eye(len(names), dtype=bool)).all(1) & (len(names) > 1)
        weights = np.nan_to_num(adjacency, nan=0.0)
        most = min(_EDGES_A_NODE * len(names), _MOST_EDGES)
        edges, total = strongest_edges(weights, most)
        return cls(weights, certain, unknown, not is_symmetric(adjacency), edges, total)


def _draw_graph(
    axes: Axes,
    graph: _Graph,
    names: Sequence[str],
    scale: Sequence[tuple[int, int, float]],
) -> bool:
    """Draw face, edges and nodes; return whether the names are AUs."""
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
    for i, j, size in graph.edges:
        strength = _strength(size, scale)
        darkness = strength if graph.certain is None else float(graph.certain[i, j])
        _draw_edge(axes, places, graph.weights, i, j, strength, darkness, graph.directed)
    for name, points, color, hollow in zip(names, places, colors, graph.unknown, strict=True):
        for x, y in points:
            label = name if aus is None else name.removeprefix("AU")
            _draw_node(axes, x, y, label, None if hollow else color)
    return aus is not None


def _shown(graph: _Graph) -> str:
    shown, total = len(graph.edges), graph.total
    return f"{shown} strongest of {total} edges" if shown < total else f"{total} edges"


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
    darkness: float,
    directed: bool,
) -> None:
    to_i, to_j = abs(weights[i, j]), abs(weights[j, i])
    heads = ("<" if to_i >= 0.5 * to_j else "") + "-" + (">" if to_j >= 0.5 * to_i else "")
    arrow = f"{heads},head_length=3,head_width=1.6" if directed else "-"
    sign = weights[i, j] if to_i >= to_j else weights[j, i]
    for start, end in _same_side(places[i], places[j]):
        # Curve lines away from the midline, so that the two halves are mirror images.
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
    """Return pairs of positions of two AUs: each with the nearest of the other, without repeats."""
    pairs = {(a, min(second, key=lambda b: np.hypot(a[0] - b[0], a[1] - b[1]))) for a in first}
    if len(second) > len(first):
        pairs = {(min(first, key=lambda a: np.hypot(a[0] - b[0], a[1] - b[1])), b) for b in second}
    return sorted(pairs)


def _draw_node(axes: Axes, x: float, y: float, label: str, color: str | None) -> None:
    """Draw a node; a dashed outline where it has no color."""
    box: dict[str, Any] = {"boxstyle": "circle,pad=0.28", "lw": 1.2}
    box |= {"facecolor": color, "edgecolor": "white"}
    if color is None:
        box |= {"facecolor": "white", "edgecolor": GRAY, "linestyle": (0, (2, 2))}
    axes.text(
        x,
        y,
        label,
        ha="center",
        va="center",
        fontsize=8.5 if len(label) <= 2 else 7,
        color=GRAY if color is None else INK,
        zorder=4,
        bbox=box,
    )


def _draw_legend(
    figure: Figure,
    on_face: bool,
    edges: Sequence[tuple[int, int, float]],
    weight: str,
    caption: Sequence[str],
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
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=3 if len(handles) > 5 else max(1, len(handles)),
        frameon=False,
        fontsize=9,
        title="; ".join(caption),
        title_fontsize=9,
    )


def _examples(weights: Sequence[float]) -> list[float]:
    """Return the weakest weight, and the strongest of each sign; weights are weakest first."""
    strongest = [
        part[-1] for part in ([w for w in weights if w > 0], [w for w in weights if w < 0]) if part
    ]
    return list(dict.fromkeys([*weights[:1], *strongest]))
