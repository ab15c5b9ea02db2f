"""A learned vector for each node, which distinguishes the nodes for layers with shared weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aurel.layers.masked_norm import zero_absent
from aurel.ops.arguments import check_shape


class NodeEmbedding(nn.Module):
    r"""Add a vector of its own to each node.

    .. math:: y_i = x_i + e_i

    Graph layers share their weights between nodes, so a target cannot know which AU sent a message
    unless the features show it. The option ``node_embedding=True`` of a graph layer applies this
    layer to its input. Elementary; the papers' models do not have it.

    Args:
        channels: width C of the nodes.
        num_nodes: number N of nodes.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_nodes = num_nodes
        self.weight = nn.Parameter(torch.empty(num_nodes, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the vectors from N(0, 0.01)."""
        nn.init.normal_(self.weight, std=0.1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the nodes with their vectors.

        Args:
            x: (B, N, C), floating point.
            mask: (B, N) bool, True where the node is valid.

        Returns:
            (B, N, C), zero where `mask` is False.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", N=self.num_nodes, C=self.channels)
        return zero_absent(x + self.weight, mask)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}"


def node_embedding_of(
    node_embedding: bool, channels: int, num_nodes: int | None
) -> NodeEmbedding | None:
    """Return the node embedding of a layer with this option; None where it is off.

    Raises:
        ValueError: it is on, and `num_nodes` is None.
    """
    if not node_embedding:
        return None
    if num_nodes is None:
        raise ValueError("num_nodes must be given with node_embedding=True, got None")
    return NodeEmbedding(channels, num_nodes)
