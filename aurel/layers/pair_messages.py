"""Messages between nodes with a learned vector for each ordered pair of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.masked_norm import zero_absent
from aurel.ops.arguments import check_shape
from aurel.ops.masks import pair_mask


class PairMessages(nn.Module):
    r"""Add to each node the messages of all nodes, weighted by a vector of the pair.

    .. math:: y_i = x_i + \sum_j P_{ij} \odot \operatorname{GELU}(V x_j)

    with :math:`P_{ij}` in :math:`\mathbb{R}^C` a parameter of the pair of target i and source j,
    :math:`P_{ii}` included, and V shared by all nodes, without a bias. Layers whose weights are
    shared by all pairs must infer from the features which AU a node is; here the parameters of a
    pair belong to two given AUs. The layer has :math:`N^2 C + C^2` parameters. Elementary; not
    from a paper.

    With BP4D in ``benchmarks/relations.py`` the layer closes 84 % of what exact inference gains
    on covered AUs. It adds the messages of single sources, which combine less than exactly.

    Args:
        channels: width C of the nodes.
        num_nodes: number N of nodes.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_nodes = num_nodes
        self.pairs = nn.Parameter(torch.empty(num_nodes, num_nodes, channels))
        self.message = nn.Linear(channels, channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize V as `nn.Linear` and P from N(0, 0.01 / N), which is near the identity.

        With P = 0 the layer is the identity, but V has no gradient.
        """
        self.message.reset_parameters()
        nn.init.normal_(self.pairs, std=0.1 * max(self.num_nodes, 1) ** -0.5)

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[True]
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        r"""Add the messages to the nodes.

        Args:
            x: (B, N, C), floating point.
            mask: (B, N) bool, True where the node is valid.
            return_graph: also return the graph with weights :math:`\lVert P_{ij} \rVert`,
                (B, N, N), which are the same for all items of the batch but for the mask.

        Returns:
            (B, N, C), zero where `mask` is False; with `return_graph` also the `RelationGraph`.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", N=self.num_nodes, C=self.channels)
        x = zero_absent(x, mask)
        messages = F.gelu(self.message(x))
        # One product (B, N) by (N, N) for each channel, so that no (B, N, N, C) is built.
        out = zero_absent(x + torch.einsum("bjc,ijc->bic", messages, self.pairs), mask)
        return (out, self._graph(x, mask)) if return_graph else out

    if TYPE_CHECKING:
        __call__ = forward

    def _graph(self, x: Tensor, mask: Tensor | None) -> RelationGraph:
        weights = self.pairs.norm(dim=2).expand(x.shape[0], -1, -1)
        if mask is not None:
            weights = weights.where(pair_mask(mask), 0.0)
        return RelationGraph(weights=weights)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}"
