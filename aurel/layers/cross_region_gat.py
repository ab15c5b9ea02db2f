"""Graph attention between action units of different facial regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.constants import keep_constants
from aurel.layers.masked_norm import zero_absent
from aurel.layers.node_embedding import node_embedding_of
from aurel.ops.arguments import check_choice, check_device, check_mask, check_shape, promote
from aurel.ops.backend import Backend
from aurel.ops.graph_attention import graph_attention
from aurel.ops.masks import pair_mask
from aurel.ops.precision import without_autocast

Edges = Literal["fully_connected", "same_region", "cross_region", "active", "active_cross_region"]


class CrossRegionGAT(nn.Module):
    r"""Graph attention on edges chosen by facial region and by predicted activation.

    .. math::
        \alpha_{nm} = \underset{m \in \mathcal N(n)}{\mathrm{softmax}}\;
            \mathrm{LeakyReLU}_{0.2}(r_t^\top z_n + r_s^\top z_m), \qquad z = W x \\
        y_n = \mathrm{ELU}\Big(\sum_{m \in \mathcal N(n)} \alpha_{nm} z_m + x_n + b\Big)

    Besides itself, the sources of node n are the nodes m that `edges` allows:

    - ``"fully_connected"``: every m;
    - ``"same_region"``: m of the region of n;
    - ``"cross_region"``: m of another region;
    - ``"active"``: m predicted active;
    - ``"active_cross_region"``: m predicted active and of another region.

    Weights depend on the features of target and source, so that a covered target can select
    sources, as far as their features show which AU they are. With BP4D in
    ``benchmarks/relations.py`` the layer closes 56 % of what exact inference gains on covered AUs
    with all edges, and 26 % with ``"active_cross_region"``; `node_embedding` adds identities.

    Args:
        channels: width C of a node.
        regions: the region of each node, a number; nodes of equal number share a region. The
            authors' code counts the two groups of AUs in BP4D's lower face as two regions, the
            paper has one (`RegionPlan.group_of` and `region_of`).
        heads: attention heads, C / heads wide each.
        edges: one of the above.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.

    Raises:
        ValueError: `edges` is unknown, or `heads` does not divide `channels`.

    Source: MDHR (Wang et al., CVPR 2024), section 3.2, equation 9, and the edge strategies of its
    table 5. The residual and the bias are in the authors' code, not in the equation.
    """

    _static: Tensor
    _loops: Tensor

    def __init__(
        self,
        channels: int,
        regions: Sequence[int],
        heads: int = 1,
        edges: Edges = "active_cross_region",
        *,
        node_embedding: bool = False,
    ) -> None:
        super().__init__()
        check_choice("edges", edges, get_args(Edges))
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide channels={channels}, got {heads}")
        self.channels = channels
        self.regions = tuple(regions)
        self.heads = heads
        self.edges = edges
        self.linear = nn.Linear(channels, channels, bias=False)
        self.target_attention = nn.Parameter(torch.empty(heads, channels // heads))
        self.source_attention = nn.Parameter(torch.empty(heads, channels // heads))
        self.bias = nn.Parameter(torch.empty(channels))
        pairs = (len(self.regions), len(self.regions))
        self.register_buffer("_static", torch.empty(pairs, dtype=torch.bool), persistent=False)
        self.register_buffer("_loops", torch.empty(pairs, dtype=torch.bool), persistent=False)
        self.embedding = node_embedding_of(node_embedding, channels, len(self.regions))
        keep_constants(self)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights Xavier-uniform, the bias with 0."""
        nn.init.xavier_uniform_(self.linear.weight)
        for attention in (self.target_attention, self.source_attention):
            # The authors' vector is (1, H, C / H), which sets the fan.
            nn.init.xavier_uniform_(attention.data[None])
        nn.init.zeros_(self.bias)
        if self.embedding is not None:
            self.embedding.reset_parameters()
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Fill in the edges that the regions allow."""
        region = torch.tensor(self.regions, device="cpu")
        crosses = region[:, None] != region
        static = {"same_region": ~crosses, "cross_region": crosses, "active_cross_region": crosses}
        self._static.copy_(static.get(self.edges, torch.ones_like(crosses)))
        self._loops.copy_(torch.eye(len(region), dtype=torch.bool, device="cpu"))

    @overload
    def forward(
        self,
        x: Tensor,
        active: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_graph: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        active: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_graph: Literal[True],
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        active: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_graph: bool,
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self,
        x: Tensor,
        active: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_graph: bool = False,
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        r"""Return the nodes after attention to their sources.

        Args:
            x: nodes (B, N, C).
            active: (B, N), bool, or a number that is > 0 where the node is active. It gets no
                gradient. Required by the two active strategies, which take sources from these
                nodes; ignored by the others.
            mask: (B, N) bool, True where the node exists.
            return_graph: also return the attention, averaged over heads, as a graph.

        Returns:
            (B, N, C), zero where `mask` is False; with `return_graph` also the `RelationGraph`
            with dense weights (B, N, N).
        """
        adjacency = self.adjacency(x, active, mask)
        x = zero_absent(x, mask) if self.embedding is None else self.embedding(x, mask)
        out, weights = self.attend(x, adjacency, return_weights=return_graph)
        out = zero_absent(out, mask)
        return out if weights is None else (out, RelationGraph(weights=weights.mean(1)))

    if TYPE_CHECKING:
        __call__ = forward

    def adjacency(
        self, x: Tensor, active: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the edges, bool (N, N) or (B, N, N), targets in rows; arguments as `forward`."""
        batch, nodes = x.shape[0], len(self.regions)
        check_shape("x", x, "B N C", N=nodes, C=self.channels)
        check_mask(mask, x)
        edges = self._static
        if self.edges.startswith("active"):
            if active is None:
                raise ValueError(f"active must be a tensor with edges={self.edges!r}, got None")
            check_shape("active", active, "B N", B=batch, N=nodes)
            check_device("active", active, x)
            edges = edges & (active > 0).unsqueeze(1)
        edges = edges | self._loops
        return edges if mask is None else edges & pair_mask(mask)

    def attend(
        self,
        x: Tensor,
        adjacency: Tensor,
        *,
        return_weights: bool = True,
        backend: Backend = "auto",
    ) -> tuple[Tensor, Tensor | None]:
        """Return the nodes after attention on a graph of the caller, and the attention.

        Args:
            x: nodes (B, N, C).
            adjacency: (N, N) or (B, N, N), > 0 where the column is a source of the row.
            return_weights: False gives None for the attention, and saves its memory.
            backend: see `aurel.ops.backend`.

        Returns:
            Nodes (B, N, C) and attention (B, H, N, N).
        """
        z = self.linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()
        ends = torch.stack((self.target_attention, self.source_attention), -1)
        with without_autocast(x):  # scores in the precision of the parameters
            target, source = torch.matmul(*promote(z, ends)).unbind(-1)
        out, weights = graph_attention(
            z, target, source, adjacency, return_weights=return_weights, backend=backend
        )
        return F.elu(out.transpose(1, 2).flatten(2) + x + self.bias), weights

    def extra_repr(self) -> str:
        return f"{self.channels}, regions={self.regions}, heads={self.heads}, edges={self.edges!r}"
