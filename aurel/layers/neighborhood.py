"""What the graph convolutions over neighbour lists share: where a list comes from and goes to."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.graph import RelationGraph
from aurel.layers.masked_norm import zero_absent
from aurel.ops.knn_graph import knn_graph


def drop_absent(neighbors: Tensor, mask: Tensor | None) -> Tensor:
    """Return `neighbors`, (B, N, K), with -1 where either end of the edge is absent."""
    if mask is None:
        return neighbors
    samples = torch.arange(mask.shape[0], device=mask.device)[:, None, None]
    exists = mask[samples, neighbors.clamp_min(0)] & (neighbors >= 0) & mask[:, :, None]
    return neighbors.where(exists, -1)


def given_or_nearest(
    neighbors: Tensor | None, x: Tensor, k: int, metric: str, loop: bool, mask: Tensor | None
) -> Tensor:
    """Return the given list without absent nodes, or the nearest nodes where none is given."""
    if neighbors is None:
        return knn_graph(x, k, metric, loop=loop, mask=mask)
    return drop_absent(neighbors, mask)


def finish(
    out: Tensor, neighbors: Tensor, mask: Tensor | None, return_graph: bool
) -> Tensor | tuple[Tensor, RelationGraph]:
    """Return what a layer returns: zeros for absent nodes, and the graph if it is wanted."""
    out = zero_absent(out, mask)
    return (out, RelationGraph(neighbors=neighbors)) if return_graph else out
