"""Stochastic depth: branches that are dropped at random in training."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Return `x` with random samples set to zero and the others scaled up, in training alone.

    Args:
        x: (B, ...), a branch beside a shortcut.
        rate: probability with which a sample is dropped, in [0, 1).
        training: the mode of the layer.
    """
    if not training or rate == 0:
        return x
    kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= rate
    return x * (kept / (1 - rate)).to(x.dtype)
