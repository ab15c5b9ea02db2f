"""The vision transformer of OpenGraphAU, with a fixed table of positions, registered in timm.

Parameter names and shapes are those of its masked autoencoder's encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.eva import Eva
from torch import Tensor, nn


class SinCosViT(Eva):
    """timm's EVA with neither class token nor learned positions; keys have no bias.

    Args: those of `timm.models.eva.Eva` but for class token and positions.
    """

    def __init__(self, **options: Any) -> None:
        options["global_pool"] = ""  # the final norm is that of the tokens, not of their mean
        super().__init__(class_token=False, use_abs_pos_emb=False, **options)
        del self.pos_embed
        table = torch.empty(1, self.patch_embed.num_patches, self.embed_dim, dtype=torch.float32)
        self.register_buffer("pos_embed", table, persistent=False)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Fill in the table of positions."""
        table = self.get_buffer("pos_embed")
        with torch.device("cpu"):
            table.copy_(sine_positions(*table.shape[1:]))


def sine_positions(count: int, channels: int) -> Tensor:
    r"""Return sines and cosines of a position at decreasing frequencies.

    .. math:: t_{p, 2i} = \sin(p / 10000^{2i / C}), \qquad t_{p, 2i + 1} = \cos(p / 10000^{2i / C})

    Args:
        count: number of positions; patches are counted row by row.
        channels: C, even.

    Returns:
        (count, C) float32.
    """
    frequency = 10000 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(count, dtype=torch.float64).unsqueeze(1) * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


default_cfgs = generate_default_cfgs(
    {
        # Trained on faces by OpenGraphAU's authors, and on ImageNet by others: load it by path.
        "vit_base_patch16_sincos.mae": {
            "num_classes": 0,
            "classifier": "head",
            "first_conv": "patch_embed.proj",
            "input_size": (3, 224, 224),
            "pool_size": None,
            "fixed_input_size": True,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "origin_url": "https://github.com/lingjivoo/OpenGraphAU",
            "paper_name": "Masked Autoencoders Are Scalable Vision Learners",
            "paper_ids": "arXiv:2111.06377",
        },
    }
)


@register_model
def vit_base_patch16_sincos(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Base for 224 px, 85.6 M parameters, 12 blocks of 12 heads at width 768."""
    return build_model_with_cfg(
        SinCosViT,
        "vit_base_patch16_sincos",
        pretrained,
        feature_cfg={"out_indices": (11,), "feature_cls": "getter"},
        **kwargs,
    )
