"""Max-relative graph convolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from aurel.layers.linear_norm import LinearNorm, interleave
from aurel.layers.neighborhood import Metric, NeighborGraphConv
from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate


class MaxRelativeGraphConv(NeighborGraphConv):
    r"""Join every node with how far its neighbours reach above it.

    .. math:: y_i = \operatorname{GELU}(\operatorname{BN}(W [x_i ; \max_j (x_j - x_i)]))

    over the k nearest nodes j of i. The two halves are interleaved channel by channel before
    the grouped map, as in Vision GNN (Han et al., NeurIPS 2022), so that weights of its 1x1
    convolution serve here. Batch statistics are over present nodes. Used by SACL (Liu et al.,
    IEEE TAC 2024, section 3.4), which states neither groups nor normalisation.

    Args:
        in_channels: width C of the nodes.
        out_channels: width of the result.
        k: number of neighbours.
        metric: "l2", "l1", "cosine" or "dot", as in `knn_graph`.
        groups: channel groups of W.
        loop: a node may be its own neighbour.

    Raises:
        ValueError: `groups` does not divide both widths.
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
        self.project = LinearNorm(2 * in_channels, out_channels, groups)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters and forget the running statistics."""
        self.project.reset_parameters()

    def convolve(
        self, x: Tensor, mask: Tensor | None, neighbors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if neighbors is None:
            relative, neighbors = knn_max_relative(
                x, self.k, self.metric, loop=self.loop, mask=mask
            )
        else:
            alone = (neighbors < 0).all(2, keepdim=True)
            relative = (neighbor_aggregate(x, neighbors, "max") - x).masked_fill(alone, 0)
        return F.gelu(self.project(interleave(x, relative), mask)), neighbors
