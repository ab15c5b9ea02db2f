"""IResNet-100, the face recognizer under LRP + FGG (Duta et al., ICPR 2020), registered in timm.

Parameter names and shapes are those of the checkpoints that insightface published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.tapped import Blocks, TappedModel

FACE = 7
"""Rows and columns of the last map, from which the embedding is computed, for 112 pixels."""


class Block(nn.Module):
    r"""Two convolutions and a shortcut, without an activation after their sum.

    .. math:: y = \mathrm{BN}(W_2 * \mathrm{PReLU}(\mathrm{BN}(W_1 * \mathrm{BN}(x)))) + s(x)

    Args:
        in_channels: channels of x.
        channels: channels of y.
        stride: of the second convolution; 2 makes the shortcut s a normed 1x1 convolution, else it
            is the identity.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(out)) + (x if self.downsample is None else self.downsample(x))


class IResNet(TappedModel):
    """A stem at full resolution and four layers, each at half of the one before, rounded up.

    Any input size gives maps, at the taps ``prelu``, ``layer1`` to ``layer4`` and ``bn2``,
    the normed map of the last layer, so that there is no final norm after the taps.
    The embedding (``fc``, ``features``) is one linear map of all entries of a 7x7 map, so it takes
    faces of 97 to 112 pixels.

    Args:
        num_classes: width of the embedding, 512 in the published weights; 0 for none: then the
            output is the mean of the last map.
        in_chans: channels of the images.
        dims: width of each layer; the stem has that of the first.
        depths: blocks of each layer.
        drop_rate: dropout before the embedding.
    """

    def __init__(
        self,
        num_classes: int = 512,
        in_chans: int = 3,
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 13, 30, 3),
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = dims[-1]
        self.drop_rate = drop_rate
        # Registered in the order of use: timm's FeatureListNet runs the children one by one.
        self.conv1 = nn.Conv2d(in_chans, dims[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dims[0])
        self.prelu = nn.PReLU(dims[0])
        self.feature_info = [_tap("prelu", dims[0], 1)]
        before = dims[0]
        for index, (width, depth) in enumerate(zip(dims, depths, strict=True), start=1):
            rest = [Block(width, width, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{index}", Blocks(Block(before, width, 2), *rest))
            self.feature_info.append(_tap(f"layer{index}", width, 2**index))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.feature_info.append(_tap("bn2", before, 2 ** len(dims)))
        self.reset_parameters()
        self.reset_classifier(num_classes)

    def reset_parameters(self) -> None:
        """Initialize convolutions as the authors do: normal, deviation 0.1."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def _steps(self) -> list[tuple[nn.Module, ...]]:
        """Return the modules that lead from each tap to the next."""
        taps = [(getattr(self, info["module"]),) for info in self.feature_info[1:]]
        return [(self.conv1, self.bn1, self.prelu), *taps]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the embedding of a map, or, without one and for `pre_logits`, its mean.

        Raises:
            ValueError: x, of which the embedding is computed, is not 7x7.
        """
        if pre_logits or self.num_classes == 0:
            return x.mean((2, 3))
        if x.shape[2:] != (FACE, FACE):
            raise ValueError(
                f"x must be a map of {FACE} x {FACE} (images of 97 to 112 pixels) for the "
                f"embedding, got {tuple(x.shape[2:])}; num_classes=0 returns pooled features"
            )
        return self.features(self.fc(F.dropout(x.flatten(1), self.drop_rate, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, num_classes), or pooled features where num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the linear map of the embedding."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the embedding by a new one of width `num_classes`, or by none for 0."""
        self.num_classes = num_classes
        self.fc: nn.Module = nn.Identity()
        self.features: nn.Module = nn.Identity()
        if num_classes > 0:
            self.fc = nn.Linear(self.num_features * FACE * FACE, num_classes)
            self.features = nn.BatchNorm1d(num_classes)
            self.features.weight.requires_grad_(False)  # the authors fix it at 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions that order parameters by depth."""
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {
            "stem": r"^(?:conv1|bn1|prelu)",
            "blocks": [(blocks, None), (r"^bn2", (99999,))],
        }

    def no_weight_decay(self) -> set[str]:
        """Return names of parameters that must not decay: none beyond norms and biases."""
        return set()


def _tap(module: str, channels: int, reduction: int) -> dict[str, Any]:
    return {"num_chs": channels, "reduction": reduction, "module": module}


def _without_other_embedding(state: Mapping[str, Tensor], model: IResNet) -> dict[str, Tensor]:
    """Return `state` without the embedding where the model has none, or another width."""
    state = {name.removeprefix("backbone."): value for name, value in state.items()}
    kept = "fc.bias" in state and len(state["fc.bias"]) == model.num_classes
    return {k: v for k, v in state.items() if kept or not k.startswith(("fc.", "features."))}


default_cfgs = generate_default_cfgs(
    {
        # The weights are for non-commercial research: no address here, load the file by path.
        "iresnet100.glint360k": {
            "num_classes": 512,
            "classifier": "fc",
            "first_conv": "conv1",
            "input_size": (3, 112, 112),
            "pool_size": (7, 7),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "license": "non-commercial research",
            "origin_url": "https://github.com/deepinsight/insightface",
            "paper_name": "Improved Residual Networks for Image and Video Recognition",
            "paper_ids": "arXiv:2004.04989",
        }
    }
)


@register_model
def iresnet100(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """IResNet-100, 65.2 M parameters, 12.1 G multiply-adds at 112 px (Duta et al.)."""
    return build_model_with_cfg(
        IResNet,
        "iresnet100",
        pretrained,
        feature_cfg={"out_indices": (1, 2, 3, 4)},
        pretrained_filter_fn=_without_other_embedding,
        **kwargs,
    )
