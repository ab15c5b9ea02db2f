"""Transformer blocks over nodes, in which every node attends to all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.graph import RelationGraph
from aurel.layers.masked_norm import zero_absent
from aurel.layers.node_embedding import NodeEmbedding, node_embedding_of
from aurel.ops.arguments import check_shape


class NodeTransformer(nn.Module):
    r"""Relate nodes by self-attention instead of by a graph of neighbors.

    .. math::
        G'  &= G + \big[A_h V_h(\mathrm{LN}(G))\big]_h W_o, \qquad
        A_h = \mathrm{softmax}\big(Q_h(\mathrm{LN}(G)) K_h(\mathrm{LN}(G))^\top / \sqrt{E}\big) \\
        G'' &= G' + \mathrm{GELU}(\mathrm{LN}(G') W_1) W_2

    after a linear map of the nodes to `channels`. There is no encoding of positions: nodes are
    treated alike, unless `node_embedding` is set.

    With BP4D in ``benchmarks/relations.py`` the layer closes 73 % of what exact inference gains
    on covered AUs: as far as features show which AU a node is, attention can use it.

    Args:
        in_channels: width of the nodes.
        channels: width C of the blocks and of the result.
        depth: number of blocks.
        heads: number of attention heads.
        head_dim: width E of a head.
        expansion: width of the hidden layer, as a multiple of `channels`.
        node_embedding: add a learned vector of its own to each input node, see `NodeEmbedding`.
        num_nodes: number N of nodes; required by `node_embedding`, else None for any number.

    Source: the ablation "Transformer" in table 9 of SACL (Liu & Yuan, IEEE TAC 2024): six vanilla
    blocks, 74.0 M parameters and 3.41 G multiply-adds for the whole model, no code. Heads and
    widths are inferred from these: without the graph network the model of 27.14 M has 14.90 M, so
    that the blocks and the map before them have 59.1 M. Six blocks as wide as the tokens, 960,
    with the usual fourfold hidden layer, take 66 M if their heads share the 960 channels; with the
    eight heads of 64 of the original Transformer, without biases in query, key and value, they take
    56.09 M, and the map from flattened regions (7 by 7 cells of 64 channels) to 960 takes 3.01 M:
    59.10 M.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        depth: int = 6,
        heads: int = 8,
        head_dim: int = 64,
        expansion: int = 4,
        *,
        node_embedding: bool = False,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels
        self.enter = nn.Linear(in_channels, channels)
        self.blocks = nn.ModuleList(
            _Block(channels, heads, head_dim, expansion * channels) for _ in range(depth)
        )
        self.embedding = node_embedding_of(node_embedding, in_channels, num_nodes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights and biases as `nn.Linear` does."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | NodeEmbedding):
                module.reset_parameters()

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: Literal[True]
    ) -> tuple[Tensor, tuple[RelationGraph, ...]]: ...

    @overload
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, tuple[RelationGraph, ...]]: ...

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_graph: bool = False
    ) -> Tensor | tuple[Tensor, tuple[RelationGraph, ...]]:
        """Return the nodes after all blocks.

        Args:
            x: (B, N, in_channels).
            mask: (B, N) bool, True where the node exists.
            return_graph: return the attention as well, its mean over heads, one graph a block.

        Returns:
            (B, N, channels), zero for absent nodes; with `return_graph` also the graphs.

        Raises:
            ValueError: an argument has the wrong shape or dtype.
        """
        check_shape("x", x, "B N C", C=self.in_channels)
        graphs = []
        x = zero_absent(x, mask) if self.embedding is None else self.embedding(x, mask)
        x = self.enter(x)
        for block in self.blocks:
            x, weights = block(x, mask)
            if return_graph:
                graphs.append(RelationGraph(weights=zero_absent(weights.mean(1), mask)))
        x = zero_absent(x, mask)
        return (x, tuple(graphs)) if return_graph else x

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.channels}"


class _Block(nn.Module):
    """Self-attention, then a feed-forward network, each with a norm before and a residual."""

    def __init__(self, channels: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = head_dim**-0.5
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.join = nn.Linear(heads * head_dim, channels)
        self.hidden_norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.reduce = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return new nodes (B, N, C) and the attention (B, heads, N, N)."""
        parts = self.query_key_value(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = (query * self.scale) @ key.mT
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if mask is not None:
            # Finite, so that a graph without valid nodes gives no NaN.
            scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        out = weights.to(value.dtype) @ value
        x = x + self.join(out.transpose(1, 2).flatten(2))
        return x + self.reduce(F.gelu(self.expand(self.hidden_norm(x)))), weights
