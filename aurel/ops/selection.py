"""Choice of the nearest nodes: exactly K of them, nearest first, ties to the lowest index."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.distances import approximate_scores, pairwise_scores

_BLOCK = 2**20  # differences computed at a time


def exclude(
    scores: Tensor, loop: bool, mask: Tensor | None, source_mask: Tensor | None = None
) -> Tensor:
    """Return (B, N, M) `scores` with NaN where source j cannot be a neighbor of node i.

    That is where either is absent and, without `loop`, where j is i.

    Args:
        scores: of all pairs.
        loop: a node may be its own neighbor.
        mask: (B, N) bool, which nodes exist.
        source_mask: (B, M) bool, which sources exist.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], torch.nan)
    if source_mask is not None:
        scores = scores.masked_fill(~source_mask[:, None], torch.nan)
    if not loop:
        nodes = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(nodes[:, None] == nodes, torch.nan)
    return scores


def select_nearest_reference(scores: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Return the indices of each row's `k` smallest scores, (B, N, K), -1 where the score is NaN.

    With a `dilation` d, of the k * d smallest every d-th is taken, from the smallest on.
    """
    values, indices = scores.sort(dim=-1, stable=True)
    return indices.masked_fill(values.isnan(), -1)[..., : k * dilation : dilation].contiguous()


def select_nearest(
    x: Tensor,
    sources: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    source_mask: Tensor | None,
    k: int,
    metric: str,
    loop: bool,
    dilation: int,
) -> Tensor:
    """Return the nearest sources of every node, (B, N, K), the same as by a sort of exact scores.

    On a CPU, approximate scores are used, and exact ones for rows in which those are too close to
    each other. (On other devices, finding such rows would wait for the device.) Arguments as for
    `aurel.ops.knn_graph`.
    """
    if x.device.type != "cpu" or metric == "l1" or 0 in x.shape:
        scores = pairwise_scores(x, metric, sources, bias)
        return select_nearest_reference(exclude(scores, loop, mask, source_mask), k, dilation)
    scores, error = approximate_scores(x, metric, sources, bias)
    scores = exclude(scores, loop, mask, source_mask)
    rank = min(k * dilation + 1, scores.shape[-1])
    values, indices = scores.topk(rank, dim=-1, largest=False)
    values, indices = values[..., :rank], indices.masked_fill(values.isnan(), -1)
    neighbors = indices[..., : k * dilation : dilation].contiguous()
    close = (values[..., 1:] - values[..., :-1] <= 2 * error) | values[..., :-1].isinf()
    doubtful = close.any(-1) | values[..., -1].isinf()
    sample, node = doubtful.nonzero(as_tuple=True)
    sources = x if sources is None else sources
    step = max(1, _BLOCK // max(1, sources[:1].numel()))
    for b, i in zip(sample.split(step), node.split(step), strict=True):
        rows = bias if bias is None else bias.expand(scores.shape)[b, i].unsqueeze(1)
        exact = pairwise_scores(x[b, i].unsqueeze(1), metric, sources[b], rows)
        excluded = scores[b, i].isnan().unsqueeze(1)
        exact = exact.masked_fill_(excluded, torch.nan)
        neighbors[b, i] = select_nearest_reference(exact, k, dilation).squeeze(1)
    return neighbors
