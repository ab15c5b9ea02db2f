"""Vision GNN, networks of graph layers (Han et al., NeurIPS 2022), registered in timm.

Parameter names and shapes are those of the authors' ImageNet checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.tapped import Blocks, TappedModel
from aurel.backbones.vig_blocks import Downsample, FeedForward, Stem
from aurel.layers.grapher import Grapher


class VisionGNN(TappedModel):
    """A stem, stages of blocks (a graph layer and a feed-forward network), and a classifier.

    Images may have any size for which every graph has at least as many sources as neighbors. For
    sizes other than `img_size`, positions are resampled.

    A network of one stage (ViG) has a tap after every block, one of several stages (Pyramid ViG)
    after every stage. There is no final norm.

    Args:
        num_classes: classes of the head; 0 for pooled features.
        in_chans: channels of the images.
        img_size: rows and columns of the images that the positions belong to.
        dims: width of each stage.
        depths: blocks of each stage.
        reductions: factor by which each stage pools the sources of its graphs.
        halvings: number of times that the stem halves the images.
        neighbors: neighbors of a cell in the first and in the last block; linear in between.
        relative: add relative positions to the distances between cells.
        drop_rate: dropout before the last layer of the head.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        global_pool: "avg", or "" to leave the map unpooled, which is for num_classes=0.

    Raises:
        ValueError: `dims`, `depths` and `reductions` differ in length.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        dims: Sequence[int] = (192,),
        depths: Sequence[int] = (12,),
        reductions: Sequence[int] = (1,),
        halvings: int = 4,
        neighbors: tuple[int, int] = (9, 18),
        relative: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if not len(dims) == len(depths) == len(reductions):
            raise ValueError(
                "dims, depths and reductions must have one entry a stage, got "
                f"{len(dims)}, {len(depths)} and {len(reductions)}"
            )
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = dims[-1]
        self.drop_rate = drop_rate
        self.global_pool = global_pool
        # Rows of the map of each stage; every halving rounds up.
        rows = [-(-img_size // 2 ** (halvings + stage)) for stage in range(len(dims))]
        self.stem = Stem(in_chans, dims[0], halvings)
        self.pos_embed = nn.Parameter(torch.zeros(1, dims[0], rows[0], rows[0]))
        self.backbone = nn.Sequential()
        self.feature_info = []
        plan = iter(_plan(sum(depths), neighbors, rows[-1] // reductions[-1], drop_path_rate))
        for stage, (width, depth) in enumerate(zip(dims, depths, strict=True)):
            if stage > 0:
                self.backbone.append(Downsample(dims[stage - 1], width))
            size = (rows[stage], rows[stage]) if relative else None
            for block in range(depth):
                self.backbone.append(_block(width, reductions[stage], size, *next(plan)))
                if len(dims) == 1 or block == depth - 1:
                    self._add_tap(width, 2 ** (halvings + stage))
        self.reset_classifier(num_classes)
        self.reset_parameters()

    def _add_tap(self, channels: int, reduction: int) -> None:
        """Add a tap for the map that the last entry of `backbone` returns."""
        module = f"backbone.{len(self.backbone) - 1}"
        self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": module})

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights after He et al., biases and positions 0."""
        nn.init.zeros_(self.pos_embed)
        _reset_convolutions(self)

    def _steps(self) -> list[tuple[Any, ...]]:
        """Return the modules that lead from each tap to the next."""
        blocks = list(self.backbone)
        ends = self._ends()
        steps: list[tuple[Any, ...]] = [
            tuple(blocks[before:end]) for before, end in zip([0, *ends], ends, strict=False)
        ]
        return [(self._embed, *steps[0]), *steps[1:]]

    def _ends(self) -> list[int]:
        """Return how many entries of `backbone` lead to each tap."""
        return [int(info["module"].split(".")[1]) + 1 for info in self.feature_info]

    def _embed(self, images: Tensor) -> Tensor:
        # With channels last, the cells of a map are nodes without a copy.
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        positions: Tensor = self.pos_embed
        if positions.shape[2:] != x.shape[2:]:
            positions = F.interpolate(positions, x.shape[2:], mode="bicubic")
        return x + positions

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the modules that the taps `indices` do not require; return those indices."""
        take = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        for index in range(self._ends()[take[-1]], len(self.backbone)):
            self.backbone[index] = nn.Identity()
        return take

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a map and classify it; `pre_logits` stops after the pooling."""
        if self.global_pool:
            x = x.mean((2, 3), keepdim=True)
        if not pre_logits:
            x = self.prediction(x)
        return x.flatten(1) if self.global_pool else x

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes), or pooled features where num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the two-layer head."""
        return self.prediction

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one of `num_classes`, or by none for 0."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.prediction = _head(self.num_features, num_classes, self.drop_rate)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions that order parameters by depth."""
        whole, half = r"^backbone\.(\d+)", r"^backbone\.(\d+)\.(\d)"
        blocks = [(whole, None)] if coarse else [(half, None), (whole, None)]
        return {"stem": r"^stem|^pos_embed", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay: none beyond norms and biases."""
        return set()


def _plan(
    blocks: int, neighbors: tuple[int, int], last_rows: int, drop_path: float
) -> list[tuple[int, int, float]]:
    """Return k, dilation and drop path of each block.

    Dilation grows by 1 every four blocks, as far as the k d nearest of the last map's `last_rows`^2
    sources exist for the largest k.
    """
    first, last = neighbors
    most = max(1, last_rows**2 // max(neighbors))
    steps = max(blocks - 1, 1)
    return [
        (
            first + (last - first) * block // steps,
            min(block // 4 + 1, most),
            drop_path * block / steps,
        )
        for block in range(blocks)
    ]


def _block(
    width: int,
    reduction: int,
    position_size: tuple[int, int] | None,
    k: int,
    dilation: int,
    drop_path: float,
) -> Blocks:
    grapher = Grapher(
        width,
        k,
        dilation=dilation,
        reduction=reduction,
        position_size=position_size,
        drop_path=drop_path,
    )
    return Blocks(grapher, FeedForward(width, drop_path))


def _head(features: int, num_classes: int, drop_rate: float) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    hidden = 1024
    head = nn.Sequential(
        nn.Conv2d(features, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.GELU(),
        nn.Dropout(drop_rate),
        nn.Conv2d(hidden, num_classes, 1),
    )
    _reset_convolutions(head)
    return head


def _reset_convolutions(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _without_unused_head(state: Mapping[str, Tensor], model: VisionGNN) -> dict[str, Tensor]:
    """Return `state` without the head where the model has none."""
    kept = model.num_classes > 0
    return {k: v for k, v in state.items() if kept or not k.startswith("prediction.")}


def _cfg(pool: int, crop: float = 0.9) -> dict[str, Any]:
    # No addresses of the authors' files are given: load them by path.
    return {
        "num_classes": 1000,
        "classifier": "prediction.4",
        "first_conv": "stem.convs.0",
        "input_size": (3, 224, 224),
        "pool_size": (pool, pool),
        "crop_pct": crop,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "license": "apache-2.0",
        "origin_url": "https://github.com/huawei-noah/Efficient-AI-Backbones",
        "paper_name": "Vision GNN: An Image is Worth Graph of Nodes",
        "paper_ids": "arXiv:2206.00272",
    }


default_cfgs = generate_default_cfgs(
    {
        "vig_ti_224_gelu.in1k": _cfg(14),
        "vig_s_224_gelu.in1k": _cfg(14),
        "vig_b_224_gelu.in1k": _cfg(14, 0.95),
        "pvig_ti_224_gelu.in1k": _cfg(7),
        "pvig_s_224_gelu.in1k": _cfg(7),
        "pvig_m_224_gelu.in1k": _cfg(7),
        "pvig_b_224_gelu.in1k": _cfg(7, 0.95),
    }
)


def _create(name: str, pretrained: bool, taps: Sequence[int], **options: Any) -> nn.Module:
    return build_model_with_cfg(
        VisionGNN,
        name,
        pretrained,
        feature_cfg={"out_indices": taps, "feature_cls": "getter"},
        pretrained_filter_fn=_without_unused_head,
        **options,
    )


def _isotropic(name: str, pretrained: bool, width: int, depth: int, options: Any) -> nn.Module:
    sizes = {"dims": (width,), "depths": (depth,)}
    return _create(name, pretrained, (depth - 1,), **{**sizes, **options})


def _pyramid(
    name: str, pretrained: bool, dims: Sequence[int], third: int, options: Any
) -> nn.Module:
    """Return a network of four stages, with `third` blocks in the third."""
    sizes = {
        "dims": dims,
        "depths": (2, 2, third, 2),
        "reductions": (4, 2, 1, 1),
        "halvings": 2,
        "neighbors": (9, 9),
        "relative": True,
    }
    return _create(name, pretrained, (0, 1, 2, 3), **{**sizes, **options})


@register_model
def vig_ti_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-Ti: 12 blocks of width 192 on 14 x 14 cells."""
    return _isotropic("vig_ti_224_gelu", pretrained, 192, 12, kwargs)


@register_model
def vig_s_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-S: 16 blocks of width 320 on 14 x 14 cells."""
    return _isotropic("vig_s_224_gelu", pretrained, 320, 16, kwargs)


@register_model
def vig_b_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViG-B: 16 blocks of width 640 on 14 x 14 cells."""
    return _isotropic("vig_b_224_gelu", pretrained, 640, 16, kwargs)


@register_model
def pvig_ti_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Pyramid ViG-Ti: 2, 2, 6, 2 blocks of width 48 to 384."""
    return _pyramid("pvig_ti_224_gelu", pretrained, (48, 96, 240, 384), 6, kwargs)


@register_model
def pvig_s_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Pyramid ViG-S: 2, 2, 6, 2 blocks of width 80 to 640."""
    return _pyramid("pvig_s_224_gelu", pretrained, (80, 160, 400, 640), 6, kwargs)


@register_model
def pvig_m_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Pyramid ViG-M: 2, 2, 16, 2 blocks of width 96 to 768."""
    return _pyramid("pvig_m_224_gelu", pretrained, (96, 192, 384, 768), 16, kwargs)


@register_model
def pvig_b_224_gelu(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Pyramid ViG-B: 2, 2, 18, 2 blocks of width 128 to 1024."""
    return _pyramid("pvig_b_224_gelu", pretrained, (128, 256, 512, 1024), 18, kwargs)
