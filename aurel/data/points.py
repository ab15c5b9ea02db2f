"""Landmarks that move with their picture."""

from __future__ import annotations

from torch import Tensor


def move_points(points: Tensor, matrix: Tensor) -> Tensor:
    r"""Return points moved by an affine map, such as that of the aligner of faces.

    :math:`p' = A p + t` for the matrix :math:`[A \mid t]`.

    Args:
        points: (..., 2) x and y in pixels of the source picture; NaN stays NaN.
        matrix: (2, 3), from pixels of the source to pixels of the chip.

    Returns:
        (..., 2) in pixels of the chip, in the dtype of `points`.

    Raises:
        ValueError: another shape.
    """
    if points.shape[-1:] != (2,):
        raise ValueError(f"points must have the shape (..., 2), got {tuple(points.shape)}")
    if matrix.shape != (2, 3):
        raise ValueError(f"matrix must have the shape (2, 3), got {tuple(matrix.shape)}")
    moved = points.to(matrix) @ matrix[:, :2].T + matrix[:, 2]
    return moved.to(points)
