"""Checks and means over partly known labels, shared by the losses."""

from __future__ import annotations

import torch
from torch import Tensor


def weigh(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return `values`, (..., N), times `weights`, (N,), if they are not None."""
    if weights is None:
        return values
    check_weights(weights, values.shape[-1])
    return values * weights.to(values)


def check_weights(weights: Tensor, count: int) -> None:
    """Raise ValueError unless `weights` has one entry for each of `count` AUs."""
    if tuple(weights.shape) != (count,):
        raise ValueError(
            f"weights must have shape (N={count}), one entry an AU, got {tuple(weights.shape)}"
        )


def check_pair(name: str, predicted: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is one label for each of the predictions called `name`."""
    if predicted.shape != labels.shape:
        raise ValueError(
            f"{name} and labels must have the same shape, got {tuple(predicted.shape)} and "
            f"{tuple(labels.shape)}"
        )


def mean_known(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of `values` where `known`, 0 if none are known."""
    return torch.where(known, values, 0).sum() / known.sum().clamp_min(1)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or `dtype` where it is wider."""
    return torch.promote_types(dtype, torch.float32)
