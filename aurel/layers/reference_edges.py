"""The definition of `MultiDimensionalEdges`, which keeps the tokens of every pair in memory."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aurel.layers.multi_dimensional_edges import MultiDimensionalEdges


def materialized_edges(layer: MultiDimensionalEdges, nodes: Tensor, tokens: Tensor) -> Tensor:
    """Return the edges of `layer` computed by their equation, before the mean over tokens.

    In training it updates the running statistics of `layer`, like the layer itself.

    Args:
        layer: the layer with the parameters to use.
        nodes: (B, N, D, C).
        tokens: (B, D, C).

    Returns:
        (B, N*N, D, C), the pair (i, j) at i N + j; its mean over D is ``layer(nodes, tokens)``.

    Source: the code of Luo et al., IJCAI 2022 (ME-GraphAU), `GEM`.
    """
    batch, count, length, channels = nodes.shape
    face = tokens.unsqueeze(1).expand(-1, count, -1, -1).reshape(nodes.shape)
    attended = _attend(layer.face_query, layer.face_key, layer.face_value, nodes, face)
    pairs = (batch, count, count, length, channels)
    target = attended.unsqueeze(2).expand(pairs).reshape(batch, count * count, length, channels)
    source = attended.unsqueeze(1).expand(pairs).reshape(batch, count * count, length, channels)
    between = _attend(layer.pair_query, layer.pair_key, layer.pair_value, source, target)
    norm = layer.norm
    return F.batch_norm(
        layer.projection(between),
        norm.running_mean.view(-1),
        norm.running_var.view(-1),
        norm.weight.view(-1),
        norm.bias.view(-1),
        norm.training,
        norm.momentum or 0.0,
        norm.eps,
    )


def _attend(query: nn.Linear, key: nn.Linear, value: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    """Return tokens x after attention to tokens y."""
    scores = query(x) @ key(y).mT * query.out_features**-0.5
    return scores.softmax(-1) @ value(y)
