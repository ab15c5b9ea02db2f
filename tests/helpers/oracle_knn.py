"""The neighborhood ops in float64 numpy, one node at a time."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def scores(x: Array, metric: str, sources: Array | None = None, bias: Array | None = None) -> Array:
    """Return (N, M) scores of one graph, smaller is nearer; NaN where undefined."""
    x = x.astype(np.float64)
    sources = x if sources is None else sources.astype(np.float64)
    out = np.empty((len(x), len(sources)))
    with np.errstate(all="ignore"):
        for i, a in enumerate(x):
            for j, b in enumerate(sources):
                if metric == "l2":
                    out[i, j] = ((a - b) ** 2).sum()
                elif metric == "l1":
                    out[i, j] = np.abs(a - b).sum()
                elif metric == "dot":
                    out[i, j] = -(a @ b)
                elif bias is None:
                    # cos |cos| |a|^2: the order of cos in each row, without a root to round.
                    out[i, j] = -(a @ b) * abs(a @ b) / max(b @ b, 1e-24)
                else:
                    out[i, j] = 1 - (a @ b) / max(np.sqrt((a @ a) * (b @ b)), 1e-24)
        if metric == "cosine":
            out[~np.isfinite(out)] = np.nan
        return out if bias is None else out + bias


def neighbors(
    x: Array,
    k: int,
    metric: str = "l2",
    loop: bool = True,
    mask: Array | None = None,
    sources: Array | None = None,
    source_mask: Array | None = None,
    bias: Array | None = None,
    dilation: int = 1,
) -> Array:
    """Return (B, N, K) nearest nodes, ties to the lowest index, -1 where there is none."""
    batch, nodes, _ = x.shape
    others = x if sources is None else sources
    present = np.ones((batch, nodes), bool) if mask is None else mask
    if sources is None:
        source_mask = mask
    valid = np.ones(others.shape[:2], bool) if source_mask is None else source_mask
    out = np.full((batch, nodes, k), -1)
    for b in range(batch):
        shift = bias if bias is None or bias.ndim == 2 else bias[b]
        distance = scores(x[b], metric, others[b], shift)
        distance = np.nan_to_num(distance, nan=np.inf, posinf=np.inf, neginf=-np.inf)
        for i in range(nodes):
            if not present[b, i]:
                continue
            order = np.argsort(distance[i], kind="stable")
            chosen = [j for j in order if valid[b, j] and (loop or j != i)]
            chosen = chosen[: k * dilation : dilation]
            out[b, i, : len(chosen)] = chosen
    return out


def aggregate(x: Array, lists: Array, reduce: str) -> Array:
    """Return (B, N, C) reductions over the listed nodes of (B, M, C), 0 where there is none."""
    out = np.zeros((*lists.shape[:2], x.shape[2]))
    for b, i in np.ndindex(*lists.shape[:2]):
        chosen = [j for j in lists[b, i] if j >= 0]
        if chosen:
            out[b, i] = getattr(np, reduce)(x[b, chosen].astype(np.float64), axis=0)
    return out


def max_relative(x: Array, lists: Array, sources: Array | None = None) -> Array:
    """Return (B, N, C) maxima of s_j - x_i."""
    nonempty = (lists >= 0).any(2, keepdims=True)
    return np.where(nonempty, aggregate(x if sources is None else sources, lists, "max") - x, 0)


def max_gradient(x: Array, lists: Array, grad: Array, relative: bool) -> Array:
    """Return the gradient of the maximum (or of max-relative) with respect to the listed nodes."""
    out = source_gradient(x, lists, grad)
    return out + node_gradient(lists, grad) if relative else out


def source_gradient(sources: Array, lists: Array, grad: Array) -> Array:
    """Return the gradient of the maximum: to the first neighbor that attains it."""
    out = np.zeros(sources.shape)
    for b, i in np.ndindex(*lists.shape[:2]):
        chosen = [j for j in lists[b, i] if j >= 0]
        for c in range(sources.shape[2]) if chosen else ():
            out[b, chosen[int(np.argmax(sources[b, chosen, c]))], c] += grad[b, i, c]
    return out


def node_gradient(lists: Array, grad: Array) -> Array:
    """Return the gradient of max-relative with respect to the node that is subtracted."""
    return np.where((lists >= 0).any(2, keepdims=True), -grad, 0.0)


def topk(
    x: Array, values: Array, k: int, metric: str, ties: str, mask: Array | None = None
) -> Array:
    """Return (B, N, C) means of the k chosen values, or D^-1/2 A D^-1/2 values with all ties."""
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
