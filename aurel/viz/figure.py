"""Create figures without pyplot, so that the caller's matplotlib settings do not change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aurel.files import atomic_path

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError("pictures need matplotlib: pip install 'aurel-au[viz]'") from error

__all__ = [
    "FancyArrowPatch",
    "Figure",
    "Line2D",
    "MaxNLocator",
    "is_symmetric",
    "new_figure",
    "save_figure",
    "square_matrix",
]

# The palette of Okabe and Ito, whose colors color-blind readers can distinguish.
BLUE, ORANGE, VERMILION, GREEN, SKY, YELLOW, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#56B4E9",
    "#F0E442",
    "#CC79A7",
)
INK, GRAY, PALE = "#22262B", "#8A929B", "#D9DDE2"


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure of that size in inches."""
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure at 150 dots per inch, in the format of the suffix: .png, .pdf or .svg."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def square_matrix(matrix: Any, names: Sequence[str]) -> NDArray[np.float64]:
    """Return `matrix` (an array or a tensor) as float64.

    Raises:
        ValueError: not (N, N) for N names, or infinite. NaN, an unknown weight, is kept.
    """
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().double().numpy()
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != (len(names), len(names)):
        raise ValueError(
            f"adjacency must be ({len(names)}, {len(names)}) for {len(names)} names, "
            f"got {array.shape}"
        )
    if np.isinf(array).any():
        raise ValueError("adjacency must be finite or NaN, got infinity")
    return array


def is_symmetric(matrix: NDArray[np.float64]) -> bool:
    """Return whether a matrix is its transpose, NaN beside NaN."""
    return bool(np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-12, equal_nan=True))
