"""Graph convolution over the K most similar nodes: the facial graph generator."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.graph_batch_norm import GraphBatchNorm
from aurel.layers.masked_norm import zero_absent
from aurel.layers.node_embedding import node_embedding_of
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_choice, check_k, check_shape
from aurel.ops.distances import METRICS, Metric
from aurel.ops.topk_aggregate import TIES, Ties, topk_aggregate


class TopKGraphConv(nn.Module):
    r"""Aggregate the messages of the k nodes whose features are most like those of a node.

    .. math::
        X' = \operatorname{ReLU}(X + \operatorname{BN}(\hat{A}\, V(X) + U(X))), \qquad
        \hat{A} = D^{-1/2} A D^{-1/2}

    with linear maps U and V, A the k best of each row of the scores of X (`topk_aggregate`), and
    batch normalization over images and channels, one mean and variance a node. The facial graph
    generator of ME-GraphAU (Luo et al., IJCAI 2022, section 3.1), also in MACG and LRP. Their
    text exchanges U and V against their code; here U maps the node itself, as in the code. On ties
    the code keeps more than k neighbors: ``ties="all"``.

    A message does not show which AU sent it, except by its features, and sources are similar to
    their targets, not informative of them. With BP4D in ``benchmarks/relations.py`` the layer
    closes 7 % of what exact inference gains on covered AUs; `node_embedding` adds identities.

    Args:
        channels: width C of the nodes.
        num_nodes: number N of nodes.
        k: number of neighbors; the node itself competes like any other.
        metric: "dot", "cosine", "l1" or "l2".
        ties: "exact" or "all", see `topk_aggregate`.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.

    Raises:
        ValueError: an argument has a value that is not among those above.
    """

    def __init__(
        self,
        channels: int,
        num_nodes: int,
        k: int = 4,
        metric: Metric = "dot",
        ties: Ties = "exact",
        *,
        node_embedding: bool = False,
    ) -> None:
        super().__init__()
        check_k(k, num_nodes)
        check_choice("metric", metric, METRICS)
        check_choice("ties", ties, TIES)
        self.channels = channels
        self.num_nodes = num_nodes
        self.k = k
        self.metric: Metric = metric
        self.ties: Ties = ties
        self.project = nn.Linear(channels, 2 * channels)  # rows of V, then of U
        self.norm = GraphBatchNorm((num_nodes,))
        self.embedding = node_embedding_of(node_embedding, channels, num_nodes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights from N(0, 2 / C), as the authors do, and biases as torch does."""
        self.project.reset_parameters()
        nn.init.normal_(self.project.weight, 0, math.sqrt(2 / self.channels))
        self.norm.reset_parameters()
        if self.embedding is not None:
            self.embedding.reset_parameters()

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
        r"""Return the convolved nodes.

        Args:
            x: (B, N, C).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the graph as well.

        Returns:
            (B, N, C), zero for absent nodes; with `return_graph` also the graph: the neighbors,
            or with ``ties="all"`` the weights :math:`\hat{A}`, (B, N, N).

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", N=self.num_nodes, C=self.channels)
        x = zero_absent(x, mask) if self.embedding is None else self.embedding(x, mask)
        values, itself = self._project(x)
        mean, neighbors = topk_aggregate(x, values, self.k, self.metric, ties=self.ties, mask=mask)
        out = zero_absent(F.relu(x + self.norm(mean + itself, mask), inplace=True), mask)
        if not return_graph:
            return out
        if self.ties == "exact":
            return out, RelationGraph(neighbors=neighbors)
        return out, RelationGraph(weights=self._weights(x, mask))

    if TYPE_CHECKING:
        __call__ = forward

    def _project(self, x: Tensor) -> Iterable[Tensor]:
        """Return V(X) and U(X).

        On a CPU a second product takes less time than to join the gradients of two halves.
        """
        linear = self.project
        if not x.is_cpu or not is_plain(linear, nn.Linear) or linear.bias is None:
            return linear(x).chunk(2, dim=-1)
        maps = zip(linear.weight.chunk(2), linear.bias.chunk(2), strict=True)
        return (F.linear(x, weight, bias) for weight, bias in maps)

    def _weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the normalized adjacency, (B, N, N): the aggregate of the identity."""
        batch, nodes, _ = x.shape
        dtype = torch.promote_types(x.dtype, torch.float32)
        identity = torch.eye(nodes, dtype=dtype, device=x.device).repeat(batch, 1, 1)
        return topk_aggregate(x, identity, self.k, self.metric, ties=self.ties, mask=mask)[0]

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, num_nodes={self.num_nodes}, k={self.k}, "
            f"metric={self.metric!r}, ties={self.ties!r}"
        )
