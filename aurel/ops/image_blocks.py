"""Blocks of images, so that intermediate values fit in a cache or in the memory of a device."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def image_blocks(x: Tensor, budget: int) -> Iterator[slice]:
    """Yield blocks of images of `x`, (B, ...): at most `budget` numbers, or a single image."""
    images = max(1, budget // max(1, x[:1].numel()))
    for first in range(0, x.shape[0], images):
        yield slice(first, first + images)
