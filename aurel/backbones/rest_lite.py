"""ResT, the pyramid transformer of SACL (Zhang & Yang, NeurIPS 2021), registered in timm.

Parameter names and shapes are those of the authors' ImageNet checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.rest_blocks import NORM_EPS, Block, PatchEmbed, Stage, Stem
from aurel.backbones.tapped import TappedModel


class ResT(TappedModel):
    """A stem and four stages, at 1/4, 1/4, 1/8, 1/16 and 1/32 of the resolution, rounded up.

    Images may have any size: sizes are those of the maps, where the authors' code uses floor
    divisions and raises for odd maps.

    Args:
        num_classes: classes of the linear head; 0 for pooled features.
        in_chans: channels of the images.
        dims: width of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        sr_ratios: factor by which each stage reduces its key map.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        global_pool: "avg", or "" to leave the map unpooled.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (1, 2, 4, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = dims[-1]
        self.drop_rate = drop_rate
        self.global_pool = global_pool
        # Registered in the order of use: timm's FeatureListNet runs the children one by one.
        self.stem = Stem(in_chans, dims[0])
        self.feature_info = [{"num_chs": dims[0], "reduction": 4, "module": "stem"}]
        last = max(sum(depths) - 1, 1)
        before = 0
        for index, (width, depth) in enumerate(zip(dims, depths, strict=True)):
            if index > 0:
                embed = PatchEmbed(dims[index - 1], width)
                self.add_module(f"patch_embed_{index + 1}", embed)
            rates = [drop_path_rate * (before + block) / last for block in range(depth)]
            blocks = [Block(width, heads[index], sr_ratios[index], rate) for rate in rates]
            self.add_module(f"stage{index + 1}", Stage(*blocks))
            self.feature_info.append(
                {"num_chs": width, "reduction": 4 * 2**index, "module": f"stage{index + 1}"}
            )
            before += depth
        self.norm: nn.Module = nn.LayerNorm(dims[-1], NORM_EPS)
        self.head = _classifier(dims[-1], num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: truncated normal, deviation 0.02; linear biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def _steps(self) -> list[tuple[nn.Module, ...]]:
        """Return the modules that lead from each tap to the next."""
        steps: list[tuple[nn.Module, ...]] = [(self.stem,)]
        for info in self.feature_info[1:]:
            stage = info["module"]
            embed = getattr(self, f"patch_embed_{stage[-1]}", None)
            step = getattr(self, stage)
            steps.append((step,) if embed is None else (embed, step))
        return steps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a map and classify it; `pre_logits` stops before the linear layer."""
        if self.global_pool:
            x = x.mean((2, 3))
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes), or pooled features where num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def _norm_map(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _drop_norm(self) -> None:
        self.norm = nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the linear head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one of `num_classes`, or by none for 0."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.head = _classifier(self.num_features, num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions that order parameters by depth."""
        blocks = r"^stage(\d+)" if coarse else r"^stage(\d+)\.(\d+)"
        return {
            "stem": r"^stem",
            "blocks": [(r"^patch_embed_(\d+)", None), (blocks, None), (r"^norm", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay: none beyond norms and biases."""
        return set()


def _classifier(features: int, num_classes: int) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(features, num_classes)
    trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


default_cfgs = generate_default_cfgs(
    {
        # No address of the authors' file rest_lite.pth is given: load it by path.
        "rest_lite.in1k": {
            "num_classes": 1000,
            "classifier": "head",
            "first_conv": "stem.conv1",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "license": "apache-2.0",
            "origin_url": "https://github.com/wofmanaf/ResT",
            "paper_name": "ResT: An Efficient Transformer for Visual Recognition",
            "paper_ids": "arXiv:2105.13677",
        },
        "rest_tiny.untrained": {
            "num_classes": 1000,
            "classifier": "head",
            "first_conv": "stem.conv1",
            "input_size": (3, 96, 96),
            "pool_size": (3, 3),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "description": "a small variant without a paper: for demonstrations and tests on a CPU",
        },
    }
)


def _create(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    feature_cfg = {"out_indices": (1, 2, 3, 4)}
    return build_model_with_cfg(ResT, name, pretrained, feature_cfg=feature_cfg, **kwargs)


@register_model
def rest_lite(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResT-Lite, 10.5 M parameters, 1.53 G multiply-adds at 224 px (Zhang & Yang, Table 1)."""
    return _create("rest_lite", pretrained, **kwargs)


@register_model
def rest_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResT of a quarter of the width and half the depth of Lite, for quick runs; not published."""
    sizes = {"dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1)}
    return _create("rest_tiny", pretrained, **{**sizes, **kwargs})
