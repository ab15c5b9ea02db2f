"""Convolutional blocks of Vision GNN: stem, downsampling between stages, feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from aurel.layers.drop_path import drop_path


class Stem(nn.Module):
    """Convolutions of stride 2, and a last one of stride 1.

    Args:
        in_chans: channels of the images.
        channels: width of the result; each halving doubles the width up to it.
        halvings: number of convolutions with stride 2.
    """

    def __init__(self, in_chans: int, channels: int, halvings: int) -> None:
        super().__init__()
        widths = [channels >> (halvings - 1 - step) for step in range(halvings)]
        layers: list[nn.Module] = []
        for before, width in zip([in_chans, *widths], widths, strict=False):
            layers += [*conv_norm(before, width, 3, stride=2), nn.GELU()]
        self.convs = nn.Sequential(*layers, *conv_norm(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Downsample(nn.Module):
    """A convolution that halves the map, and batch normalization."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv_norm(in_channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FeedForward(nn.Module):
    r"""A hidden layer of four times the width at every cell, with a residual.

    .. math:: Y = \operatorname{BN}(\operatorname{GELU}(\operatorname{BN}(X W_1)) W_2) + X
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.fc1 = conv_norm(channels, 4 * channels, 1)
        self.act = nn.GELU()
        self.fc2 = conv_norm(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + drop_path(self.fc2(self.act(self.fc1(x))), self.drop_path, self.training)


def conv_norm(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps or divides the size of the map, and its normalization."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))
