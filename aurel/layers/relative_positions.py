"""Relative positions of the cells of a map, as a term of the distances between them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_positions(channels: int, size: tuple[int, int], reduction: int = 1) -> Tensor:
    r"""Return a term that grows with the distance between two cells.

    .. math:: b_{ij} = -\frac{2}{C} p_i \cdot p_j, \qquad
        p = [\sin(u \omega); \cos(u \omega); \sin(v \omega); \cos(v \omega)], \qquad
        \omega_m = 10000^{-4 m / C}

    for the cell in row u and column v. Pooling shortens the second axis by bicubic interpolation.
    From the released code of Vision GNN (Han et al., NeurIPS 2022).

    Args:
        channels: C, a multiple of 4.
        size: rows and columns of the map.
        reduction: factor by which the map of the sources is pooled on each axis.

    Returns:
        (1, N, M) float32 for N cells and M pooled cells, counted row by row.
    """
    rows, columns = size
    frequency = 10000 ** (-torch.arange(0, channels, 4, dtype=torch.float64) / channels)
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)
    angles = torch.cat((row[:, None] * frequency, column[:, None] * frequency), dim=1)
    table = torch.cat((angles.sin(), angles.cos()), dim=1)
    bias = (-2 / channels * table @ table.T).float().unsqueeze(0)
    return resample_positions(bias, rows * columns, (rows // reduction) * (columns // reduction))


def resample_positions(bias: Tensor, nodes: int, sources: int) -> Tensor:
    """Return `bias`, (1, N, M), resampled to (1, nodes, sources) by bicubic interpolation."""
    if bias.shape[1:] == (nodes, sources):
        return bias
    return F.interpolate(bias.unsqueeze(0), (nodes, sources), mode="bicubic").squeeze(0)
