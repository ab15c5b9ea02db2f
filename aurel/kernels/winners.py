"""The nodes that win a maximum: kept for the gradient, so in as few bytes as possible."""

from __future__ import annotations

import torch
from torch import Tensor


def winner_dtype(nodes: int) -> torch.dtype:
    """Return the smallest dtype that holds the number of any of `nodes` nodes."""
    if nodes <= 256:
        return torch.uint8
    return torch.int16 if nodes <= 32_767 else torch.int32


def new_winner(maxima: Tensor, nodes: int, keep: bool) -> Tensor:
    """Return memory for the winners of `maxima`, contiguous; empty unless `keep`."""
    if keep:
        return torch.empty_like(maxima, dtype=winner_dtype(nodes))
    return maxima.new_empty((0,), dtype=winner_dtype(nodes))
