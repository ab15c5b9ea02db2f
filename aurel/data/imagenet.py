"""The normalization of pixels for backbones that were trained on ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def standardize(
    image: Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Tensor:
    """Return a uint8 image (..., 3, H, W) as float32, normalized, by default for ImageNet."""
    center = 255 * torch.tensor(mean).view(3, 1, 1)
    deviation = 255 * torch.tensor(std).view(3, 1, 1)
    planes = image.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return planes.sub_(center).div_(deviation)
