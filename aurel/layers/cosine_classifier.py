"""Probability of each action unit as the cosine between its node and a learned prototype."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.layers.masked_norm import zero_absent
from aurel.ops.arguments import check_shape


class CosineClassifier(nn.Module):
    r"""Classify each node by its cosine similarity to a prototype.

    .. math::
        p_n = \cos(x_n, \mathrm{ReLU}(s_n))

    In [0, 1] for nodes that are nowhere negative, in [-1, 1] otherwise. A zero node gives 0; so
    does a prototype that is nowhere positive, whose gradient is zero. Float32 at least.

    Args:
        channels: width C of a node.
        num_nodes: number N of nodes.

    Source: section 3.1 of Luo et al., IJCAI 2022 (ME-GraphAU); MDHR and MACG use the same.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_nodes = num_nodes
        self.prototypes = nn.Parameter(torch.empty(num_nodes, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize prototypes as the authors do: Xavier, uniform."""
        nn.init.xavier_uniform_(self.prototypes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the probability of each AU.

        Args:
            x: nodes (B, N, C).
            mask: (B, N) bool, True where the node exists.

        Returns:
            Probabilities (B, N), zero for absent nodes.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", N=self.num_nodes, C=self.channels)
        x = zero_absent(x, mask)
        dtype = torch.promote_types(x.dtype, torch.float32)
        prototypes = F.normalize(F.relu(self.prototypes.to(dtype)), dim=-1)
        # Rounding can take a cosine past 1, which no loss of probabilities accepts.
        return (F.normalize(x.to(dtype), dim=-1) * prototypes).sum(-1).clamp(max=1)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}"
