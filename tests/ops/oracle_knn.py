"""The neighbourhood ops in float64 numpy, one node at a time."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def scores(x: Array, metric: str) -> Array:
    """(N, N) scores of one graph, smaller is nearer; NaN where not known."""
    x = x.astype(np.float64)
    out = np.empty((len(x), len(x)))
    with np.errstate(all="ignore"):
        for i, a in enumerate(x):
            for j, b in enumerate(x):
                if metric == "l2":
                    out[i, j] = ((a - b) ** 2).sum()
                elif metric == "l1":
                    out[i, j] = np.abs(a - b).sum()
                elif metric == "cosine":
                    # cos |cos| |a|^2: the order of cos in each row, without a root to round.
                    out[i, j] = -(a @ b) * abs(a @ b) / max(b @ b, 1e-24)
                else:
                    out[i, j] = -(a @ b)
    return out


def neighbors(
    x: Array, k: int, metric: str = "l2", loop: bool = True, mask: Array | None = None
) -> Array:
    """(B, N, K) nearest nodes, ties to the lowest index, -1 where there is none."""
    batch, nodes, _ = x.shape
    present = np.ones((batch, nodes), bool) if mask is None else mask
    out = np.full((batch, nodes, k), -1)
    for b in range(batch):
        distance = np.nan_to_num(scores(x[b], metric), nan=np.inf, posinf=np.inf, neginf=-np.inf)
        for i in range(nodes):
            if not present[b, i]:
                continue
            order = np.argsort(distance[i], kind="stable")
            chosen = [j for j in order if present[b, j] and (loop or j != i)][:k]
            out[b, i, : len(chosen)] = chosen
    return out


def aggregate(x: Array, lists: Array, reduce: str) -> Array:
    """(B, N, C) reductions over the listed nodes, 0 where there is none."""
    out = np.zeros(x.shape)
    for b, i in np.ndindex(*lists.shape[:2]):
        chosen = [j for j in lists[b, i] if j >= 0]
        if chosen:
            out[b, i] = getattr(np, reduce)(x[b, chosen].astype(np.float64), axis=0)
    return out


def max_relative(x: Array, lists: Array) -> Array:
    """(B, N, C) maxima of x_j - x_i."""
    some = (lists >= 0).any(2, keepdims=True)
    return np.where(some, aggregate(x, lists, "max") - x, 0)


def max_gradient(x: Array, lists: Array, grad: Array, relative: bool) -> Array:
    """Gradient of the maximum (or of max-relative): to the first neighbour that attains it."""
    out = np.zeros(x.shape)
    for b, i in np.ndindex(*lists.shape[:2]):
        chosen = [j for j in lists[b, i] if j >= 0]
        if not chosen:
            continue
        for c in range(x.shape[2]):
            out[b, chosen[int(np.argmax(x[b, chosen, c]))], c] += grad[b, i, c]
        if relative:
            out[b, i] -= grad[b, i]
    return out


def topk(
    x: Array, values: Array, k: int, metric: str, ties: str, mask: Array | None = None
) -> Array:
    """(B, N, C) mean of the k chosen values, or D^-1/2 A D^-1/2 values with all ties."""
    lists = neighbors(x, k, metric, mask=mask)
    if ties == "exact":
        return aggregate(values, lists, "mean")
    batch, nodes, _ = x.shape
    present = np.ones((batch, nodes), bool) if mask is None else mask
    out = np.zeros(values.shape)
    for b in range(batch):
        score = np.nan_to_num(scores(x[b], metric), nan=np.inf, posinf=np.inf, neginf=-np.inf)
        adjacency = np.zeros((nodes, nodes))
        for i in np.flatnonzero(present[b]):
            last = lists[b, i, lists[b, i] >= 0][-1]
            full = (lists[b, i] >= 0).all()
            threshold = score[i, last] if full else np.inf
            adjacency[i] = (score[i] <= threshold) & present[b]
        root = np.sqrt(np.maximum(adjacency.sum(1), 1))
        out[b] = (adjacency / root[:, None] / root) @ values[b].astype(np.float64)
    return out
