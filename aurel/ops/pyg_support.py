"""The "pyg" backend: torch-cluster and torch-scatter, for graphs without padding.

Both are imported where they are used. Neither handles NaN: such calls are rejected. Of points at
equal distances torch-cluster keeps any: such ties are broken here.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = (torch.float32, torch.float64)


def pyg_obstacle(x: Tensor, package: str) -> str | None:
    """Return why `package` cannot serve a call on `x`, or None if it can."""
    if find_spec(package) is None:
        name = package.replace("_", "-")
        return f"needs {name}: pip install --no-build-isolation 'aurel-au[pyg-ext]'"
    if x.dtype not in DTYPES:
        return f"serves float32 and float64, got {x.dtype}"
    return None


def check_finite(op: str, x: Tensor) -> None:
    """Raise ValueError unless `x` is finite everywhere: the packages do not handle NaN."""
    if not bool(x.isfinite().all()):
        raise ValueError(f"{op}: backend='pyg' serves finite features, got NaN or infinities")


def reduce_segments(x: Tensor, neighbors: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    """Reduce the nodes of each list, by torch-scatter.

    Args:
        x: (B, N, C), finite.
        neighbors: (B, N, K) int64, -1 in empty slots.
        reduce: "max", "mean" or "sum".

    Returns:
        (B, N, C), 0 for an empty list, and for "max" the first slot that attains it, (B, N, C)
        int64, 0 for an empty list.
    """
    from torch_scatter import segment_csr, segment_max_csr

    listed = neighbors >= 0
    sample, node, slot = listed.nonzero(as_tuple=True)
    winner = neighbors.new_zeros(x.shape if reduce == "max" else 0)
    if len(slot) == 0 or x.shape[2] == 0:  # torch-scatter would return uninitialized memory
        return torch.zeros_like(x), winner
    gathered = x[sample, neighbors[sample, node, slot]]
    ends = F.pad(listed.sum(2).flatten().cumsum(0), (1, 0))
    if reduce != "max":
        return segment_csr(gathered, ends, reduce=reduce).view(x.shape), winner
    out, edge = segment_max_csr(gathered, ends)
    return out.view(x.shape), F.pad(slot, (0, 1))[edge].view(x.shape)


def nearest_in_graphs(x: Tensor, batch: Tensor, k: int, loop: bool) -> Tensor:
    """Return the nearest nodes by Euclidean distance, by torch-cluster.

    Of nodes that tie, torch-cluster keeps any. So more than `k` neighbors are requested, and twice
    as many again while the last of them ties with the k-th.

    Args:
        x: (M, C), finite.
        batch: (M,) int64, the graph of each node, ascending.
        k: number of neighbors.
        loop: a node may be its own neighbor.

    Returns:
        (M, K) nodes, nearest first, ties to the lowest index, -1 in empty slots.
    """
    from torch_cluster import knn_graph

    lists = batch.new_full((len(x), k), -1)
    if len(x) == 0:
        return lists
    if x.shape[1] == 0:  # torch-cluster cannot build a tree without channels
        x = x.new_zeros(len(x), 1)
    sizes = batch.bincount()[batch]
    requested = k + (not loop)
    unambiguous = False
    while not unambiguous:
        requested = 2 * requested
        source, target = knn_graph(x, requested, batch, loop=True)
        scores = (x[source] - x[target]).square().sum(1)
        complete = sizes <= requested
        farthest = scores.new_zeros(len(x)).scatter_reduce(0, target, scores, "amax")
        if not loop:
            others = source != target
            source, target, scores = source[others], target[others], scores[others]
        source, target, scores = _in_order(source, target, scores)
        degree = target.bincount(minlength=len(x))
        rank = torch.arange(len(target), device=x.device) - (degree.cumsum(0) - degree)[target]
        near = rank < k
        last = scores.new_zeros(len(x)).scatter_reduce(0, target[near], scores[near], "amax")
        unambiguous = bool((complete | (last < farthest)).all())
    lists[target[near], rank[near]] = source[near]
    return lists


def _in_order(source: Tensor, target: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges sorted by target, then score, then source."""
    order = source.argsort()
    for key in (scores, target):
        order = order[key[order].argsort(stable=True)]
    return source[order], target[order], scores[order]
