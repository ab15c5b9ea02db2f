"""InceptionResnetV1, the face recognition network of facenet-pytorch, registered in timm.

Parameter names and shapes are those of its published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.backbones.tapped import Blocks, TappedModel
from aurel.ops.arguments import check_choice

NORM_EPS = 1e-3
EMBEDDING = 512
Padding = Literal["valid", "same"]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU; by default, odd kernels keep the size."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        pad = (height // 2, width // 2) if padding is None else padding
        self.conv = nn.Conv2d(in_channels, channels, (height, width), stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Branches(nn.Module):
    """Modules of the same input map, their outputs concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)
        self.num_branches = len(branches)

    def forward(self, x: Tensor) -> Tensor:
        branches = (getattr(self, f"branch{index}") for index in range(self.num_branches))
        return torch.cat([branch(x) for branch in branches], dim=1)


class Residual(Branches):
    r""":math:`\mathrm{ReLU}(x + s\, W [b_0(x) ; b_1(x) ; \dots])`, the ReLU being optional."""

    def __init__(
        self, channels: int, width: int, scale: float, *branches: nn.Module, relu: bool = True
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale = scale
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.conv2d(super().forward(x))
        return F.relu(x, inplace=True) if self.relu else x


def block35() -> Residual:
    """Return a block on the 256 channels at an eighth of the resolution."""
    branches = (
        ConvNorm(256, 32, 1),
        nn.Sequential(ConvNorm(256, 32, 1), ConvNorm(32, 32, 3)),
        nn.Sequential(ConvNorm(256, 32, 1), ConvNorm(32, 32, 3), ConvNorm(32, 32, 3)),
    )
    return Residual(256, 96, 0.17, *branches)


def block17() -> Residual:
    """Return a block on the 896 channels at a sixteenth of the resolution."""
    wide = (ConvNorm(896, 128, 1), ConvNorm(128, 128, (1, 7)), ConvNorm(128, 128, (7, 1)))
    return Residual(896, 256, 0.10, ConvNorm(896, 128, 1), nn.Sequential(*wide))


def block8(scale: float = 0.20, relu: bool = True) -> Residual:
    """Return a block on the 1792 channels at a thirty-second of the resolution."""
    wide = (ConvNorm(1792, 192, 1), ConvNorm(192, 192, (1, 3)), ConvNorm(192, 192, (3, 1)))
    return Residual(1792, 384, scale, ConvNorm(1792, 192, 1), nn.Sequential(*wide), relu=relu)


class InceptionResnetV1(TappedModel):
    """Inception blocks with residuals, to an embedding of 512 numbers.

    Five taps: 64, 192, 256, 896 and 1792 channels at a half to a thirty-second of the resolution.
    With "valid" padding those are nominal, since every unpadded convolution removes a border:
    256 pixels become maps of 125, 60, 29, 14 and 6 cells, 160 become 77, 36, 17, 8 and 3.

    Args:
        num_classes: classes of the linear classifier; 0 for the embedding, not normalized.
        in_chans: channels of the images.
        padding: "valid" as published; "same" pads all convolutions, so that 256 pixels become 128,
            64, 32, 16 and 8 cells. Parameters are the same.
        drop_rate: dropout before the embedding.
        global_pool: "avg", or "" to leave the map unpooled.

    Raises:
        ValueError: `padding` is none of these.
    """

    def __init__(
        self,
        num_classes: int = 8631,
        in_chans: int = 3,
        padding: Padding = "valid",
        drop_rate: float = 0.6,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        check_choice("padding", padding, ("valid", "same"))
        pad = 1 if padding == "same" else 0
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.padding = padding
        self.num_features = 1792
        self.head_hidden_size = EMBEDDING
        self.drop_rate = drop_rate
        self.global_pool = global_pool
        # Registered in the order of use: timm's FeatureListNet runs the children one by one.
        self.conv2d_1a = ConvNorm(in_chans, 32, 3, 2, pad)
        self.conv2d_2a = ConvNorm(32, 32, 3, 1, pad)
        self.conv2d_2b = ConvNorm(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2, pad)
        self.conv2d_3b = ConvNorm(64, 80, 1)
        self.conv2d_4a = ConvNorm(80, 192, 3, 1, pad)
        self.conv2d_4b = ConvNorm(192, 256, 3, 2, pad)
        self.repeat_1 = Blocks(*(block35() for _ in range(5)))
        self.mixed_6a = Branches(
            ConvNorm(256, 384, 3, 2, pad),
            nn.Sequential(
                ConvNorm(256, 192, 1), ConvNorm(192, 192, 3), ConvNorm(192, 256, 3, 2, pad)
            ),
            nn.MaxPool2d(3, 2, pad),
        )
        self.repeat_2 = Blocks(*(block17() for _ in range(10)))
        self.mixed_7a = Branches(
            nn.Sequential(ConvNorm(896, 256, 1), ConvNorm(256, 384, 3, 2, pad)),
            nn.Sequential(ConvNorm(896, 256, 1), ConvNorm(256, 256, 3, 2, pad)),
            nn.Sequential(
                ConvNorm(896, 256, 1), ConvNorm(256, 256, 3), ConvNorm(256, 256, 3, 2, pad)
            ),
            nn.MaxPool2d(3, 2, pad),
        )
        self.repeat_3 = Blocks(*(block8() for _ in range(5)))
        self.block8 = block8(1.0, relu=False)
        self.last_linear: nn.Module = nn.Linear(1792, EMBEDDING, bias=False)
        self.last_bn: nn.Module = nn.BatchNorm1d(EMBEDDING, eps=NORM_EPS)
        self.logits: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        widths = {"conv2d_2b": 64, "conv2d_4a": 192, "repeat_1": 256, "repeat_2": 896}
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (index + 1), "module": name}
            for index, (name, width) in enumerate({**widths, "block8": 1792}.items())
        ]

    def _steps(self) -> list[tuple[nn.Module, ...]]:
        return [
            (self.conv2d_1a, self.conv2d_2a, self.conv2d_2b),
            (self.maxpool_3a, self.conv2d_3b, self.conv2d_4a),
            (self.conv2d_4b, self.repeat_1),
            (self.mixed_6a, self.repeat_2),
            (self.mixed_7a, self.repeat_3, self.block8),
        ]

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the modules that the taps `indices` do not require; return those indices."""
        take = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if not self.global_pool:
            self.last_linear, self.last_bn = nn.Identity(), nn.Identity()
        return take

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a map, embed and classify it; `pre_logits` stops at the embedding."""
        if not self.global_pool:
            return x
        x = F.dropout(x.mean((2, 3)), self.drop_rate, self.training)
        x = self.last_bn(self.last_linear(x))
        return x if pre_logits else self.logits(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes), or embeddings (B, 512) where num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return self.logits

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one of `num_classes`, or by none for 0."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.logits = nn.Linear(EMBEDDING, num_classes) if num_classes else nn.Identity()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's regular expressions that order parameters by depth."""
        repeats = r"^repeat_(\d+)" if coarse else r"^repeat_(\d+)\.(\d+)"
        return {
            "stem": r"^conv2d_",
            "blocks": [
                (r"^mixed_6a", (1, 99)),
                (r"^mixed_7a", (2, 99)),
                (repeats, None),
                (r"^block8|^last_", (99999,)),
            ],
        }


def drop_logits(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a published file without the classifier that `model` lacks."""
    keys = model.state_dict()
    return {k: v for k, v in state_dict.items() if k in keys or not k.startswith("logits.")}


_COMMON = {
    "classifier": "logits",
    "first_conv": "conv2d_1a.conv",
    "input_size": (3, 160, 160),
    "pool_size": (3, 3),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (128 / 255, 128 / 255, 128 / 255),
    "license": "mit",
    "origin_url": "https://github.com/timesler/facenet-pytorch",
    "paper_name": "Inception-v4, Inception-ResNet and the Impact of Residual Connections",
    "paper_ids": "arXiv:1602.07261",
}
default_cfgs = generate_default_cfgs(
    {
        # They were trained on faces for research only: no address here, load by path.
        "inception_resnet_v1.vggface2": {**_COMMON, "num_classes": 8631},
        "inception_resnet_v1.casia_webface": {**_COMMON, "num_classes": 10575},
    }
)


@register_model
def inception_resnet_v1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """InceptionResnetV1, 23.5 M parameters without classifier (facenet-pytorch)."""
    return build_model_with_cfg(
        InceptionResnetV1,
        "inception_resnet_v1",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4)},
        pretrained_filter_fn=drop_logits,
        **kwargs,
    )
