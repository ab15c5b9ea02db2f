"""Edge features by cross-attention between the tokens of every pair of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aurel.graph import RelationGraph
from aurel.layers.graph_batch_norm import GraphBatchNorm
from aurel.layers.masked_norm import zero_empty_graphs
from aurel.layers.plain import is_plain
from aurel.ops.arguments import check_mask, check_shape
from aurel.ops.masks import pair_mask
from aurel.ops.pair_pool import pair_pool
from aurel.ops.precision import without_autocast


class MultiDimensionalEdges(nn.Module):
    r"""Compute a feature vector for each ordered pair of nodes by cross-attention.

    The tokens :math:`u_i` of a node attend to the tokens t of the face, which gives :math:`H_i`;
    then :math:`H_j` attends to :math:`H_i`:

    .. math::
        H_i &= F_i\, v(t), \qquad F_i = \mathrm{softmax}(q(u_i)\, k(t)^\top / \sqrt{C/2}) \\
        A_{ij} &= \mathrm{softmax}(q'(H_j)\, k'(H_i)^\top / \sqrt{C/2}) \\
        e_{ij} &= \mathrm{mean}_d\, \mathrm{BN}_{ij}\big(A_{ij}\, v'(H_i)\, W^\top + b\big)

    with statistics of the normalization over images, tokens and features. That is the definition
    (`aurel.layers.reference_edges`); the layer computes the same numbers, gradients and running
    statistics from matrices between tokens. The rows of F and A sum to one, so H needs no
    projection of its own: with :math:`V = v'(v(t)) W^\top + b` of the face,
    :math:`v'(H_i) W^\top + b = F_i V`, and the scores are
    :math:`F_j\, q'(v(t))\, k'(v(t))^\top F_i^\top`. A key bias adds a constant to a row of scores,
    which softmax ignores: its gradient is zero. The token mean needs the mean row of A only, and
    the variance that row and the scatter of `pair_pool`.

    Hooks on the maps of pairs thus get the D tokens of the face, and a module that replaces one of
    these maps must be affine, like an adapter of low rank. A hook on the normalization costs the
    memory of the definition.

    Args:
        channels: width C of tokens and edges, even.
        num_nodes: number N of nodes.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU). The authors take the token mean
    outside of their module.
    """

    def __init__(self, channels: int, num_nodes: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        self.channels = channels
        self.num_nodes = num_nodes
        half = channels // 2
        self.face_query = nn.Linear(channels, half)
        self.face_key = nn.Linear(channels, half)
        self.face_value = nn.Linear(channels, channels)
        self.pair_query = nn.Linear(channels, half)
        self.pair_key = nn.Linear(channels, half)
        self.pair_value = nn.Linear(channels, channels)
        self.projection = nn.Linear(channels, channels)
        self.norm = GraphBatchNorm((num_nodes, num_nodes))
        self.scale = half**-0.5
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the authors do: normal weights of variance 2 / output width."""
        for module in self.children():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
                nn.init.normal_(module.weight, std=(2.0 / module.out_features) ** 0.5)
        self.norm.reset_parameters()

    @overload
    def forward(
        self,
        nodes: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        return_graph: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        nodes: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        return_graph: Literal[True],
    ) -> tuple[Tensor, RelationGraph]: ...

    @overload
    def forward(
        self, nodes: Tensor, tokens: Tensor, mask: Tensor | None = None, *, return_graph: bool
    ) -> Tensor | tuple[Tensor, RelationGraph]: ...

    def forward(
        self,
        nodes: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        return_graph: bool = False,
    ) -> Tensor | tuple[Tensor, RelationGraph]:
        """Return the edge features.

        Args:
            nodes: (B, N, D, C), the tokens of each node.
            tokens: (B, D, C), the tokens of the face.
            mask: (B, N) bool, True where the node exists. The edges of an absent node are zero and
                enter no statistic.
            return_graph: also return the complete graph with these features.

        Returns:
            (B, N, N, C), target i before source j; with `return_graph` also a `RelationGraph`.

        Raises:
            ValueError: a shape does not fit.
        """
        edges, _ = self._edges(nodes, tokens, mask, None)
        if not return_graph:
            return edges
        weights = None if mask is None else pair_mask(mask).to(edges.dtype)
        return edges, RelationGraph(weights=weights, edge_features=edges)

    if TYPE_CHECKING:
        __call__ = forward

    def with_projection(
        self, nodes: Tensor, tokens: Tensor, weight: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return the edge features e, and :math:`e W^\top` at a fraction of its cost.

        The projection is taken of the D tokens of the face, not of the N N edges.

        Args:
            nodes: (B, N, D, C), the tokens of each node.
            tokens: (B, D, C), the tokens of the face.
            weight: :math:`W`, (C', C), such as `GatedEdgeGCN.edge_weight`.
            mask: (B, N) bool, True where the node exists.

        Returns:
            (B, N, N, C) and (B, N, N, C').

        Raises:
            ValueError: a shape does not fit.
        """
        check_shape("weight", weight, "C' C", C=self.channels)
        edges, projected = self._edges(nodes, tokens, mask, weight)
        assert projected is not None
        return edges, projected

    def _edges(
        self, nodes: Tensor, tokens: Tensor, mask: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the edges, and their projection if `weight` is not None."""
        check_shape("nodes", nodes, "B N D C", N=self.num_nodes, C=self.channels)
        batch, count, length, _ = nodes.shape
        check_shape("tokens", tokens, "B D C", B=batch, D=length, C=self.channels)
        check_mask(mask, nodes)
        pairs = None if mask is None else pair_mask(mask)
        if mask is not None:
            nodes = nodes.where(mask[:, :, None, None], 0.0)
            tokens = zero_empty_graphs(tokens, mask)
        scores = self._face_scores(nodes, tokens)
        attended = self.face_value(tokens)
        query, key = self.pair_query(attended), self._centered(self.pair_key, attended)
        values, shared = self._values(attended)
        narrow, wide = values.dtype, torch.promote_types(values.dtype, torch.float32)
        with without_autocast(nodes):
            attention = scores.to(wide).contiguous().softmax(-1)
            affinity = query.to(wide) @ key.to(wide).mT + self._bias_gradient()
            if not is_plain(self.norm, GraphBatchNorm):
                edges = self._defined(attention, affinity, values.to(wide) + shared, pairs)
                return edges.to(narrow), None if weight is None else F.linear(edges, weight)
            rows, scatter = self._pool(attention, affinity, values.to(wide))
            rows, values, shift = self._normalize(rows, scatter, values.to(wide), shared, pairs)
            edges = torch.baddbmm(shift, rows, values).to(narrow)
            projected = None
            if weight is not None:
                weight = weight.to(wide)
                products = torch.baddbmm(shift * weight.sum(1), rows, values @ weight.mT)
                projected = products.to(narrow).view(batch, count, count, weight.shape[0])
        return edges.view(batch, count, count, self.channels), projected

    def _face_scores(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """Return q(u) k(t)^T, (B, N, D, D), without projecting the N D tokens u."""
        batch, count, length, _ = nodes.shape
        key = self._centered(self.face_key, tokens)
        if not is_plain(self.face_query, nn.Linear):
            return self.face_query(nodes) @ key.unsqueeze(1).mT
        folded = (key @ self.face_query.weight).mT
        offset = (key @ self.face_query.bias).unsqueeze(1)
        if nodes.transpose(1, 2).is_contiguous():
            rows = nodes.transpose(1, 2).flatten(1, 2)
            scores = torch.baddbmm(offset, rows, folded)
            return scores.view(batch, length, count, length).transpose(1, 2)
        scores = torch.baddbmm(offset, nodes.flatten(1, 2), folded)
        return scores.view(batch, count, length, length)

    def _centered(self, key: nn.Linear, tokens: Tensor) -> Tensor:
        """Return scaled keys less their mean over tokens, on which no softmax depends."""
        plain = is_plain(key, nn.Linear)
        keys = (F.linear(tokens, key.weight) if plain else key(tokens)) * self.scale
        return keys - keys.mean(1, keepdim=True)

    def _bias_gradient(self) -> Tensor | float:
        """Return zero with a zero gradient for the key biases, on which no softmax depends."""
        keys = (self.face_key, self.pair_key)
        return 0.0 * sum(key.bias.sum() for key in keys if is_plain(key, nn.Linear))

    def _values(self, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Return V, (B, D, C), without the sum of its biases, and that sum, (C,)."""
        inner, outer = self.pair_value, self.projection
        wide = torch.promote_types(attended.dtype, torch.float32)
        if is_plain(inner, nn.Linear) and is_plain(outer, nn.Linear):
            values = F.linear(F.linear(attended, inner.weight), outer.weight)
            with without_autocast(attended):
                return values, outer.weight.to(wide) @ inner.bias.to(wide) + outer.bias.to(wide)
        values = outer(inner(attended))
        return values, values.new_zeros(self.channels, dtype=wide)

    def _defined(
        self, attention: Tensor, affinity: Tensor, values: Tensor, pairs: Tensor | None
    ) -> Tensor:
        """Return the edges, (B, N, N, C), from all tokens of all pairs."""
        scores = _between(attention, affinity).unsqueeze(1) @ attention.unsqueeze(2).mT
        tokens = scores.softmax(-1) @ (attention @ values.unsqueeze(1)).unsqueeze(2)
        return self.norm(tokens.flatten(3), pairs).view_as(tokens).mean(3)

    def _pool(
        self, attention: Tensor, affinity: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean row of attention of each pair to the face's tokens, and the scatter.

        The rows are (B, N N, D). The scatter (B, N, N), for training, is the sum over tokens and
        channels of squares of a pair's values about their mean over tokens.
        """
        query = _between(attention, affinity)
        gram = None
        if self.norm.training:
            centered = values - values.mean(1, keepdim=True)
            gram = _between(attention, centered @ centered.mT) @ attention.mT
        weights, scatter = pair_pool(query, attention, gram)
        return (weights @ attention).flatten(1, 2), scatter

    def _normalize(
        self,
        rows: Tensor,
        scatter: Tensor | None,
        values: Tensor,
        shared: Tensor,
        pairs: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows (B, N N, D + 1), values (B, D + 1, C), shift: edges = rows values + shift.

        The sum of the biases is one more token, on which each pair has weight 1. Its mean over
        channels and that of the values are kept apart, so that large ones cost no digits.
        """
        batch, length, _ = values.shape
        origin = shared.mean()
        values = torch.cat((values, (shared - origin).expand(batch, 1, -1)), 1)
        rows = F.pad(rows, (0, 1), value=1.0)
        level = values.mean(2, keepdim=True)
        values = values - level
        if scatter is not None:
            of_mean = length * (rows @ (values @ values.mT) * rows).sum(-1)
            scatter = scatter + of_mean.view_as(scatter)
        mean = (rows @ level).view(batch, self.num_nodes, self.num_nodes)
        scale, shift = self.norm.affine(mean, scatter, length * self.channels, pairs, origin)
        rows = rows * scale.view(1, -1, 1)
        if pairs is not None:
            rows = rows.where(pairs.flatten(1).unsqueeze(2), 0.0)
        return rows, values, shift.flatten(1).unsqueeze(2)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_nodes={self.num_nodes}"


def _between(attention: Tensor, matrix: Tensor) -> Tensor:
    """Return attention @ matrix, (B, N, D, D) by (B, D, D), as one product for each image."""
    return (attention.flatten(1, 2) @ matrix).view_as(attention)
