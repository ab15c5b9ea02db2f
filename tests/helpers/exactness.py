"""The quality of a choice of neighbors, by scores in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-6  # of a score, relative to the numbers summed in it
Array = np.ndarray


def scores_and_sizes(x: Array, sources: Array, metric: str) -> tuple[Array, Array]:
    """Return (N, M) scores of finite nodes in float64, and the size of the summed numbers."""
    target, source = x[:, None].astype(np.float64), sources[None].astype(np.float64)
    if metric == "l2":
        out = np.sqrt(((source - target) ** 2).sum(-1))
        return out, out
    if metric == "l1":
        out = np.abs(source - target).sum(-1)
        return out, out
    products = target * source
    if metric == "dot":
        return -products.sum(-1), np.abs(products).sum(-1)
    norms = np.sqrt((target**2).sum(-1) * (source**2).sum(-1))
    out = 1 - products.sum(-1) / np.where(norms > 0, norms, 1)
    return out, np.ones_like(out)


def assert_nearest(
    lists: Tensor, x: Tensor, metric: str, sources: Tensor | None = None, rounding: float = ROUNDING
) -> None:
    """Assert that no chosen node is farther than one left out, by more than rounding.

    Where the scores of a row are farther apart than rounding, its list must be the sorted one.
    """
    others = x if sources is None else sources
    for graph, nodes, among in zip(lists.numpy(), x, others, strict=True):
        score, size = scores_and_sizes(nodes.double().numpy(), among.double().numpy(), metric)
        order, k = score.argsort(1, kind="stable"), graph.shape[1]
        assert (np.diff(np.sort(graph, 1), axis=1) > 0).all() and graph.min() >= 0
        chosen, best = (np.take_along_axis(score, each, 1) for each in (graph, order))
        error = rounding * (
            np.take_along_axis(size, graph, 1) + np.take_along_axis(size, order[:, :k], 1)
        )
        assert (chosen <= best[:, :k] + error).all()
        apart = best[:, 1 : k + 1] - best[:, : min(k, best.shape[1] - 1)]
        slack = 4 * rounding * np.take_along_axis(size, order[:, 1 : k + 1], 1)
        clear = (apart > slack).all(1)
        np.testing.assert_array_equal(graph[clear], order[clear, :k])


def share_of_clear_rows(x: Tensor, k: int, metric: str) -> float:
    """Return the share of rows that `assert_nearest` compares node by node."""
    score, size = scores_and_sizes(x.double().numpy(), x.double().numpy(), metric)
    best = np.sort(score, 1)
    slack = 4 * ROUNDING * np.take_along_axis(size, score.argsort(1), 1)
    return float((np.diff(best[:, : k + 1]) > slack[:, 1 : k + 1]).all(1).mean())


def mixed_lengths(batch: int, nodes: int, channels: int) -> Tensor:
    """Return nodes with norms from 1e-12 to 1e30 within each graph."""
    lengths = torch.logspace(-12, 30, nodes, dtype=torch.float64)
    return (torch.randn(batch, nodes, channels).double() * lengths[:, None]).float()
