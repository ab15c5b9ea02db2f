"""Decoder from a coarse feature map to maps of a higher resolution, with instance norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape

_SLOPE = 0.2


class MapDecoder(nn.Module):
    r"""Upsample a feature map by convolutional blocks to maps with values between 0 and 1.

    .. math::
        y = \sigma(W\, g_L(\dots g_1(V x)))

    V and W are 1x1 convolutions, V only where x has another width than the first block. Block
    :math:`g_l` doubles the resolution. A residual block is

    .. math::
        g(x) = \tfrac{1}{\sqrt 2} \big(\mathrm{up}(S x)
            + C_2\, a(C_1\, \mathrm{up}(a(x)))\big), \qquad a = \mathrm{LeakyReLU} \circ \mathrm{IN}

    with 3x3 convolutions :math:`C`, nearest upsampling, and a 1x1 convolution S only where the
    width changes; a plain block is :math:`a(C\, \mathrm{up}(x))`. After residual blocks W maps
    :math:`a(g_L)`.

    Args:
        in_channels: width C of the map.
        out_channels: number of maps in the result.
        widths: channels before the first block and after each; the resolution grows by
            2 to the number of blocks.
        residual: residual blocks, else plain ones.
        bottlenecks: residual blocks that keep resolution and width, before the others.

    Raises:
        ValueError: fewer than two widths, or bottlenecks of plain blocks.

    Source: An et al., Applied Intelligence 2024 (GTLE-Net), section 3.3 and figure 3, which gives
    no widths; the blocks, the default widths and the bottlenecks are those of the decoder in
    StarGAN v2 that the paper names, with affine instance norm (IN) for its adaptive one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (512, 512, 256, 128, 64),
        *,
        residual: bool = True,
        bottlenecks: int = 0,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths must have at least two entries, got {tuple(widths)}")
        if bottlenecks and not residual:
            raise ValueError(f"bottlenecks must be 0 without residual, got {bottlenecks}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        first, last = widths[0], widths[-1]
        same = in_channels == first
        self.project = nn.Identity() if same else nn.Conv2d(in_channels, first, 1)
        steps: list[nn.Module] = [_ResidualBlock(first, first, 1) for _ in range(bottlenecks)]
        for before, after in zip(widths, widths[1:], strict=False):
            steps.append(_ResidualBlock(before, after, 2) if residual else _Block(before, after))
        self.blocks = nn.Sequential(*steps)
        self.norm = _instance_norm(last) if residual else None
        self.head = nn.Conv2d(last, out_channels, 1)
        self.scale = 2 ** (len(widths) - 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights, see `initialize_convolutions`."""
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, out_channels, s H, s W), s the `scale`, for x (B, C, H, W).

        Raises:
            ValueError: x has another shape, or a single cell, which has no variance.
        """
        check_shape("x", x, "B C H W", C=self.in_channels)
        if x.shape[-2:] == (1, 1):
            raise ValueError("x must have more than one cell a channel, got a map of 1 x 1")
        x = self.blocks(self.project(x))
        if self.norm is not None:
            x = _activate(self.norm, x)
        return self.head(x).sigmoid()

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, scale={self.scale}"


def initialize_convolutions(module: nn.Module) -> None:
    """Initialize convolutions as He et al.: normal, by fan-in, biases 0; norms to the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
            part.reset_parameters()


class _ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, both at `scale` times the resolution."""

    def __init__(self, in_channels: int, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = _instance_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = _instance_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(_upsample(_activate(self.norm1, x), self.scale))
        residual = self.conv2(_activate(self.norm2, residual))
        # A 1x1 convolution of repeated cells is the repeated convolution of cells.
        return (_upsample(self.shortcut(x), self.scale) + residual) * 0.5**0.5


class _Block(nn.Module):
    """A convolution at twice the resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = _instance_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return _activate(self.norm, self.conv(_upsample(x, 2)))


def _instance_norm(channels: int) -> nn.GroupNorm:
    """Return an affine instance norm that takes an empty batch, which that of torch does not."""
    return nn.GroupNorm(channels, channels)


def _activate(norm: nn.Module, x: Tensor) -> Tensor:
    # In place, unless a hook may have kept what the norm returned.
    return F.leaky_relu(norm(x), _SLOPE, inplace=is_plain(norm, nn.GroupNorm))


def _upsample(x: Tensor, scale: int) -> Tensor:
    return x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="nearest")
