"""Exact choice of the nearest nodes: always K of them, nearest first, ties to the lowest index."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 2**17  # scores a pass on a CPU: keys and scratch stay in the cache
_SHORT = 256  # nodes up to which sorting all keys is as fast as setting the smallest apart
_INFINITY = 0x7F800000  # the bits of float32 +inf


def exclude(scores: Tensor, loop: bool, mask: Tensor | None) -> Tensor:
    """Return (B, N, N) `scores` with NaN where j is nobody that i could choose.

    That is: an absent j, any j for an absent i, and i itself without `loop`.
    """
    if mask is not None:
        scores = scores.masked_fill(~(mask[:, :, None] & mask[:, None]), torch.nan)
    if not loop:
        nodes = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(nodes[:, None] == nodes, torch.nan)
    return scores


def select_nearest_reference(scores: Tensor, k: int) -> Tensor:
    """Return the indices of the `k` smallest scores of each row, -1 where the score is NaN."""
    values, indices = scores.sort(dim=-1, stable=True)
    return indices.masked_fill(values.isnan(), -1)[..., :k]


def select_nearest(scores: Tensor, k: int) -> Tensor:
    """Return what `select_nearest_reference` does, (B, N, K) int64, faster for float32 scores."""
    if scores.dtype != torch.float32:
        return select_nearest_reference(scores, k)
    nodes = scores.shape[-1]
    rows = scores.reshape(-1, nodes)
    out = torch.empty(rows.shape[0], k, dtype=torch.int64, device=scores.device)
    step = max(1, _CHUNK // nodes if scores.device.type == "cpu" else len(rows))
    for part, chosen in zip(rows.split(step), out.split(step), strict=True):
        keys = _smallest(_keys(part), k)
        torch.bitwise_and(keys, 0xFFFFFFFF, out=chosen)
        chosen.masked_fill_(keys >> 32 > _INFINITY, -1)
    return out.view(*scores.shape[:-1], k)


def _keys(scores: Tensor) -> Tensor:
    """Return int64 keys that order as (score, index) does: score bits above, index below."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # negative floats order backwards
    index = torch.arange(scores.shape[-1], device=scores.device)
    return (bits.to(torch.int64) << 32).bitwise_or_(index)


def _smallest(keys: Tensor, k: int) -> Tensor:
    """Return the `k` smallest keys of each row, ascending; the CPU path reorders `keys`."""
    if keys.device.type != "cpu":
        return keys.topk(k, dim=-1, largest=False).values
    # numpy sorts integers by vector instructions, several times faster than torch.topk.
    array = keys.numpy()
    if keys.shape[-1] > _SHORT:
        array.partition(k - 1, axis=-1)
        array = array[:, :k].copy()
    array.sort(axis=-1)
    return torch.from_numpy(array[:, :k])
