"""GraphSAGE convolution with a maximum over neighbours."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.linear_norm import LinearNorm, interleave
from aurel.layers.masked_norm import zero_absent
from aurel.layers.neighborhood import finish, given_or_nearest
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class SAGEGraphConv(nn.Module):
    r"""Join every node with the largest of its neighbours' mapped features.

    .. math:: y_i = \sigma(W_2 [x_i ; \max_j \sigma(W_1 x_j)])

    with :math:`\sigma` batch normalisation, then GELU. Hamilton et al., NeurIPS 2017, in the form
    of Vision GNN (Han et al., NeurIPS 2022), with two differences: the neighbours are mapped and
    normalised once as nodes, not once for every node that listens to them, and the halves before
    :math:`W_2` are interleaved, so that each channel group sees both.

    Args:
        in_channels: width C of the nodes.
        out_channels: width of the result.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        groups: channel groups of both maps.
        loop: a node may be its own neighbour.

    Raises:
        ValueError: `groups` does not divide the widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int,
        metric: str = "l2",
        groups: int = 4,
        loop: bool = True,
    ) -> None:
        super().__init__()
        self.k = k
        self.metric = metric
        self.loop = loop
        self.message = LinearNorm(in_channels, in_channels, groups)
        self.project = LinearNorm(2 * in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        self.message.reset_parameters()
        self.project.reset_parameters()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_graph: bool = False,
        neighbors: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Convolve.

        Args:
            x: (B, N, C).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the graph as well.
            neighbors: (B, N, K) int64, -1 for none: a graph to use instead of the nearest nodes.

        Returns:
            (B, N, out_channels), zero for absent nodes.

        Raises:
            ValueError: k is more than the nodes, or an argument has the wrong shape or dtype.
        """
        x = zero_absent(x, mask)
        neighbors = given_or_nearest(neighbors, x, self.k, self.metric, self.loop, mask)
        largest = neighbor_aggregate(F.gelu(self.message(x, mask)), neighbors, "max")
        out = F.gelu(self.project(interleave(x, largest), mask))
        return finish(out, neighbors, mask, return_graph)

    def extra_repr(self) -> str:
        return f"k={self.k}, metric={self.metric!r}, loop={self.loop}"
