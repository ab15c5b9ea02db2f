"""A temporal convolution for each action unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_shape


class PerAUTemporalConv(nn.Module):
    r"""Convolve every channel of every node along time, each with its own kernel.

    .. math::
        y_n^t = \mathrm{ReLU}\Big(\mathrm{BN}_n\Big(\sum_{s=-r}^{r} w_n^s \odot x_n^{t+s}
            + b_n\Big)\Big)

    with zeros beyond the ends of the clip. The N convolutions are one grouped convolution; the
    normalization has one mean and variance a node.

    Args:
        channels: width C of a node.
        num_nodes: number N of nodes.
        kernel_size: frames that a kernel spans, 2r + 1.

    Raises:
        ValueError: `kernel_size` is even or below 1.

    Source: Wang et al., CVPR 2024 (MDHR), section 3 ("TCN"); the paper gives no sizes, those here
    are of the authors' code.
    """

    def __init__(self, channels: int, num_nodes: int, kernel_size: int = 5) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.channels = channels
        self.num_nodes = num_nodes
        self.kernel_size = kernel_size
        width = num_nodes * channels
        self.conv = nn.Conv1d(width, width, kernel_size, padding="same", groups=width)
        self.norm = nn.BatchNorm1d(num_nodes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the kernels as torch does, the normalization to the identity."""
        self.conv.reset_parameters()
        self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, N, C) for nodes x (B, T, N, C)."""
        check_shape("x", x, "B T N C", N=self.num_nodes, C=self.channels)
        out = self.conv(x.flatten(2).mT).mT.unflatten(2, (self.num_nodes, self.channels))
        # In place, unless a hook may have kept what the norm returned.
        inplace = is_plain(self.norm, nn.BatchNorm1d)
        return F.relu(self.norm(out.flatten(0, 1)), inplace).unflatten(0, x.shape[:2])

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}, kernel_size={self.kernel_size}"
