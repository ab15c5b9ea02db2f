"""Image backbones by one function; importing this package registers those of aurel in timm."""

from __future__ import annotations

try:
    import timm  # noqa: F401
except ImportError as error:
    raise ImportError("backbones and models need timm: pip install 'aurel-au[models]'") from error

from aurel.backbones.build import build_backbone
from aurel.backbones.inception_resnet_v1 import InceptionResnetV1, inception_resnet_v1
from aurel.backbones.iresnet import IResNet, iresnet100
from aurel.backbones.rest_lite import ResT, rest_lite, rest_tiny
from aurel.backbones.vig import (
    VisionGNN,
    pvig_b_224_gelu,
    pvig_m_224_gelu,
    pvig_s_224_gelu,
    pvig_ti_224_gelu,
    vig_b_224_gelu,
    vig_s_224_gelu,
    vig_ti_224_gelu,
)
from aurel.backbones.vit_sincos import SinCosViT, vit_base_patch16_sincos

__all__ = [
    "IResNet",
    "InceptionResnetV1",
    "ResT",
    "SinCosViT",
    "VisionGNN",
    "build_backbone",
    "inception_resnet_v1",
    "iresnet100",
    "pvig_b_224_gelu",
    "pvig_m_224_gelu",
    "pvig_s_224_gelu",
    "pvig_ti_224_gelu",
    "rest_lite",
    "rest_tiny",
    "vig_b_224_gelu",
    "vig_s_224_gelu",
    "vig_ti_224_gelu",
    "vit_base_patch16_sincos",
]
