"""A convolutional classifier for each action unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from aurel.layers.map_decoder import initialize_convolutions
from aurel.ops.arguments import check_shape


class PerAUClassifier(nn.Module):
    r"""Classify the maps of every AU by separate convolutions.

    .. math::
        e_n = \mathrm{mean}_{hw}\, b_{nL}(\dots b_{n1}(c_n)), \qquad z_n = w_n^\top e_n + v_n,
        \qquad b = \mathrm{ELU} \circ \mathrm{BN} \circ \mathrm{Conv}_{7 \times 7, \text{stride } 2}

    The N convolutions of a depth are one grouped convolution; each AU has its own
    mean and variance. Maps may have any size.

    Args:
        in_channels: channels D of an AU's map.
        num_nodes: number N of AUs.
        widths: channels of the L blocks.

    Source: An et al., Applied Intelligence 2024 (GTLE-Net), section 3.4, equation 6. The paper
    gives its last convolution a padding of 1, which would surround :math:`z_n` with eight cells
    that hold the bias alone; here it has none.
    """

    def __init__(
        self, in_channels: int, num_nodes: int, widths: Sequence[int] = (16, 32, 64, 128, 256)
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_nodes = num_nodes
        self.widths = tuple(widths)
        channels = [num_nodes * width for width in (in_channels, *widths)]
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 7, stride=2, padding=3, groups=num_nodes),
                nn.BatchNorm2d(after),
                nn.ELU(inplace=True),
            )
            for before, after in zip(channels, channels[1:], strict=False)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels[-1], num_nodes, 1, groups=num_nodes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights, see `initialize_convolutions`."""
        initialize_convolutions(self)

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits (B, N) for maps (B, N, D, H, W).

        Raises:
            ValueError: `maps` has another shape.
        """
        check_shape("maps", maps, "B N D H W", N=self.num_nodes, D=self.in_channels)
        embeddings = self.blocks(maps.flatten(1, 2)).mean((2, 3), keepdim=True)
        return self.head(embeddings).flatten(1)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, num_nodes={self.num_nodes}, widths={self.widths}"
