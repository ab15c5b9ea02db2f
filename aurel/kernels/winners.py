"""The dtype of the nodes that win a maximum: kept for the gradient, so as small as possible."""

from __future__ import annotations

import torch


def winner_dtype(nodes: int) -> torch.dtype:
    """Return the smallest dtype that holds the number of any of `nodes` nodes."""
    if nodes <= 256:
        return torch.uint8
    return torch.int16 if nodes <= 32_767 else torch.int32
