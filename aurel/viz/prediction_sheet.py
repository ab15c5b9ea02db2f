"""Draw pictures with their labels and predicted probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aurel.viz.figure import BLUE, GRAY, INK, PALE, VERMILION, Line2D, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACROSS = 4
_THRESHOLD = 0.5


def draw_prediction_sheet(
    images: Any,
    labels: Any,
    probs: Any,
    names: Sequence[str],
    path: Path | str,
    visible: Any = None,
) -> None:
    """Draw pictures in rows of four, each with a bar for the predicted probability of each AU.

    A bar is blue if the prediction at threshold 0.5 equals the label, orange if not, and gray if
    there is no label. A dot after the name marks an AU that is present. Names in parentheses are
    AUs that are hidden in the picture.

    Args:
        images: (n, H, W, 3) uint8 RGB.
        labels: (n, N), 1 present, 0 absent, -1 unknown.
        probs: (n, N) in [0, 1].
        names: N names.
        path: .png, .pdf or .svg.
        visible: (n, N) bool, False where the AU is hidden; None if no AU is hidden.

    Raises:
        ValueError: an argument has another shape.
    """
    images, labels, probs = (_array(value) for value in (images, labels, probs))
    shown = np.ones(labels.shape, dtype=bool) if visible is None else _array(visible).astype(bool)
    _check(images, labels, probs, shown, names)
    across = min(_ACROSS, len(images))
    down = -(-len(images) // across)
    bars_height = 0.3 + 0.145 * len(names)
    figure = new_figure(max(2.3 * across + 0.3, 4.6), (2.2 + bars_height) * down + 0.4)
    grid = figure.add_gridspec(2 * down, across, height_ratios=[2.2, bars_height] * down)
    for index, image in enumerate(images):
        row, column = divmod(index, _ACROSS)
        axes = figure.add_subplot(grid[2 * row, column])
        axes.imshow(image)
        axes.axis("off")
        _draw_bars(
            figure.add_subplot(grid[2 * row + 1, column]),
            labels[index],
            probs[index],
            shown[index],
            names,
        )
    marks = (("correct", BLUE), ("wrong", VERMILION), ("no label", GRAY))
    handles = [Line2D([], [], color=color, lw=5, label=label) for label, color in marks]
    handles.append(Line2D([], [], color=INK, marker="o", ls="", markersize=4, label="present"))
    if not shown.all():
        handles.append(Line2D([], [], color="none", label="(AU) hidden"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
    )
    save_figure(figure, path)


def _draw_bars(
    axes: Axes,
    labels: NDArray[Any],
    probs: NDArray[Any],
    visible: NDArray[np.bool_],
    names: Sequence[str],
) -> None:
    correct = (probs >= _THRESHOLD) == (labels == 1)
    colors = np.where(labels < 0, GRAY, np.where(correct, BLUE, VERMILION))
    places = np.arange(len(names))
    axes.barh(places, np.ones(len(names)), color=PALE, height=0.7)
    axes.barh(places, np.nan_to_num(probs), color=colors.tolist(), height=0.7)
    axes.axvline(_THRESHOLD, color=INK, linewidth=0.7)
    shown = [name if clear else f"({name})" for name, clear in zip(names, visible, strict=True)]
    axes.set_yticks(places, shown, fontsize=6.5, color=INK)
    present = np.flatnonzero(labels == 1)
    if len(present):  # an empty line that is not clipped would leave no space for the axes
        dots = np.full(len(present), -0.035)
        axes.plot(dots, present, "o", color=INK, markersize=2.6, clip_on=False)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


def _array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _check(
    images: NDArray[Any],
    labels: NDArray[Any],
    probs: NDArray[Any],
    visible: NDArray[Any],
    names: Sequence[str],
) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"images must be (n, H, W, 3) uint8, got {images.shape} {images.dtype}")
    shape = (len(images), len(names))
    for name, array in (("labels", labels), ("probs", probs), ("visible", visible)):
        if array.shape != shape:
            raise ValueError(
                f"{name} must be {shape} for {shape[0]} images and {shape[1]} names, "
                f"got {array.shape}"
            )
