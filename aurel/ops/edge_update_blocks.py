"""Parts of `edge_update` in plain torch, for one block of images after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.ops.image_blocks import image_blocks
from aurel.ops.masks import pair_mask

# Values computed at a time: on a CPU as many as fit in the cache, elsewhere enough to keep the
# device busy.
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**26


def blocks_of(edges: Tensor) -> Iterator[slice]:
    """Yield blocks of images."""
    budget = _CPU_BLOCK if edges.device.type == "cpu" else _DEVICE_BLOCK
    return image_blocks(edges, budget)


def absent_pairs(mask: Tensor | None) -> Tensor | None:
    """Return which pairs are absent, (B, N, N, 1); None without a mask."""
    return None if mask is None else ~pair_mask(mask).unsqueeze(3)


def zero_absent(x: Tensor, absent: Tensor | None, block: slice) -> Tensor:
    """Fill x, values of a block of images, with zeros where a pair is absent; return x."""
    return x if absent is None else x.masked_fill_(absent[block], 0.0)


def images_of_pairs(batch: int, absent: Tensor | None) -> Tensor | int:
    """Return in how many images each pair is present, (N, N) or one number; at least 1."""
    return max(1, batch) if absent is None else (~absent.squeeze(3)).sum(0).clamp_min_(1)


def join_images(
    means: Tensor, norms: Tensor, channels: int, absent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each pair from those of its images.

    Args:
        means: over the channels of one image, (B, N, N).
        norms: of the deviations from these means, (B, N, N).
        channels: their number.
        absent: (B, N, N, 1), or None.
    """
    images = images_of_pairs(len(means), absent)
    mean = means.sum(0) / images
    gaps = means - mean
    if absent is not None:
        gaps.masked_fill_(absent.squeeze(3), 0.0)
    var = torch.add(norms.square(), gaps.square_(), alpha=channels).sum(0)
    return mean, var / (images * channels)


def normalized(
    update: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Return the argument of the ReLU, in one pass over the update."""
    mean, var, weight, bias = (each.flatten() for each in (mean, var, weight, bias))
    new = F.batch_norm(update.flatten(1, 2), mean, var, weight, bias, eps=eps)
    return new.view(update.shape)


def updates(
    projected: Tensor, target: Tensor, source: Tensor, wide: torch.dtype, absent: Tensor | None
) -> Callable[[slice], Tensor]:
    """Return a function that computes u for a block of images, zero where a pair is absent."""

    def update(block: slice) -> Tensor:
        out = projected[block].to(wide) + target[block].unsqueeze(2)
        return zero_absent(out.add_(source[block].unsqueeze(1)), absent, block)

    return update


def batch_statistics(
    edges: Tensor, update: Callable[[slice], Tensor], weight: Tensor, absent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of u over images and channels, (N, N) each."""
    means, norms = weight.new_empty((2, *edges.shape[:3]))
    for block in blocks_of(edges):
        values = update(block)
        torch.mean(values, 3, out=means[block])
        torch.linalg.vector_norm(values - means[block].unsqueeze(3), dim=3, out=norms[block])
    return join_images(means, norms, edges.shape[3], absent)
