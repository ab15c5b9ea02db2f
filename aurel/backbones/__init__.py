"""Image backbones through one door; importing it registers `rest_lite` and `rest_tiny` in timm."""

from __future__ import annotations

try:
    import timm  # noqa: F401
except ImportError as error:
    raise ImportError("backbones and models need timm: pip install 'aurel-au[models]'") from error

from aurel.backbones.build import build_backbone
from aurel.backbones.rest_lite import ResT, rest_lite, rest_tiny
from aurel.backbones.vit_sincos import SinCosViT, vit_base_patch16_sincos

__all__ = ["ResT", "SinCosViT", "build_backbone", "rest_lite", "rest_tiny", "vit_base_patch16_sincos"]
