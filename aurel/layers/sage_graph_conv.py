"""GraphSAGE convolution with a maximum over neighbours."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from aurel.layers.linear_norm import LinearNorm, interleave
from aurel.layers.neighborhood import Metric, NeighborGraphConv
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class SAGEGraphConv(NeighborGraphConv):
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
        metric: Metric = "l2",
        groups: int = 4,
        loop: bool = True,
    ) -> None:
        super().__init__(in_channels, k, metric, loop)
        self.message = LinearNorm(in_channels, in_channels, groups)
        self.project = LinearNorm(2 * in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        self.message.reset_parameters()
        self.project.reset_parameters()

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            neighbors = self.nearest(x, mask)
        largest = neighbor_aggregate(F.gelu(self.message(x, mask)), neighbors, "max")
        return F.gelu(self.project(interleave(x, largest), mask)), neighbors
