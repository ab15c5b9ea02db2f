"""Masks of pairs of nodes."""

from __future__ import annotations

from torch import Tensor


def pair_mask(mask: Tensor) -> Tensor:
    """Return which pairs have two valid nodes, (B, N, N), for the mask of the nodes, (B, N)."""
    return mask.unsqueeze(2) & mask.unsqueeze(1)
