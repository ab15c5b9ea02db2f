"""Conversion of images from the normalization of ImageNet to that of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from aurel.layers.constants import keep_constants


class Renormalize(nn.Module):
    r"""Replace ImageNet's mean and deviation in normalized images by others.

    .. math:: y = (x\, \sigma_0 + \mu_0 - \mu) / \sigma

    Where they are ImageNet's, images are returned unchanged.

    Args:
        mean: :math:`\mu` of each channel, on images in 0..1; a backbone's ``data_config["mean"]``.
        std: :math:`\sigma` of each channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        old_mean, old_std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        self.unchanged = (tuple(mean), tuple(std)) == (old_mean, old_std)
        self.factors = [old / new for old, new in zip(old_std, std, strict=True)]
        self.terms = [(m0 - m) / s for m0, m, s in zip(old_mean, mean, std, strict=True)]
        # Constants, so not in a checkpoint.
        self.register_buffer("scale", torch.empty(len(std), 1, 1), persistent=False)
        self.register_buffer("shift", torch.empty(len(std), 1, 1), persistent=False)
        keep_constants(self)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Copy the factor and the term of each channel to the device of the buffers."""
        self.scale.copy_(torch.tensor(self.factors, device="cpu").view(-1, 1, 1))
        self.shift.copy_(torch.tensor(self.terms, device="cpu").view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 3, H, W) for images (B, 3, H, W)."""
        if self.unchanged:
            return images
        return images * self.scale.to(images.device) + self.shift.to(images.device)
