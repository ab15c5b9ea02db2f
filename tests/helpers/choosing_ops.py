"""Every op that chooses neighbors, as a function that returns the lists alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aurel import ops

METRICS = ("l2", "l1", "cosine", "dot")
Chooser = Callable[..., Tensor]


def ragged(function: Callable[..., Any]) -> Chooser:
    """Return an op on ragged graphs as one on a batch of graphs of the same size."""

    def choose(x: Tensor, k: int, metric: str, *, backend: str, **options: Any) -> Tensor:
        batch, nodes, channels = x.shape
        graphs = torch.arange(batch).repeat_interleave(nodes)
        lists = function(x.reshape(-1, channels), graphs, k, metric, backend=backend, **options)
        lists = lists[1] if isinstance(lists, tuple) else lists
        first = nodes * torch.arange(batch)[:, None, None]
        return lists.view(batch, nodes, k) - first

    return choose


def of_topk(x: Tensor, k: int, metric: str, *, backend: str) -> Tensor:
    return ops.topk_aggregate(x, x[..., :1], k, metric, backend=backend)[1]


def of_topk_with_ties(x: Tensor, k: int, metric: str, *, backend: str) -> Tensor:
    return ops.topk_aggregate(x, x[..., :1], k, metric, ties="all", backend=backend)[1]


def of_max_relative(x: Tensor, k: int, metric: str, **options: Any) -> Tensor:
    return ops.knn_max_relative(x, k, metric, **options)[1]


CHOOSERS: dict[str, Chooser] = {
    "knn_graph": ops.knn_graph,
    "knn_max_relative": of_max_relative,
    "topk_aggregate": of_topk,
    "topk_aggregate, all ties": of_topk_with_ties,
    "ragged_knn_graph": ragged(ops.ragged_knn_graph),
    "ragged_knn_max_relative": ragged(ops.ragged_knn_max_relative),
}
