"""Cross-attention between the tokens of every pair of nodes, pooled over the querying tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.arguments import check_input, check_mask, check_number, promote
from aurel.ops.backend import Backend
from aurel.ops.masks import pair_mask
from aurel.ops.pair_pool import pair_pool
from aurel.ops.precision import wide_dtype, without_autocast


def pairwise_cross_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute `pairwise_cross_attention` by its definition; holds (B, N, N, D, C)."""
    dtype = wide_dtype(value)
    scores = torch.einsum("bjde,bipe->bijdp", query.to(dtype), key.to(dtype)) * scale
    attended = torch.einsum("bijdp,bipc->bijdc", scores.softmax(-1), value.to(dtype))
    return attended.mean(3).to(value.dtype), attended.square().sum((3, 4))


def pairwise_cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Attend from the tokens of node j to those of node i, for all pairs, and pool the result.

    .. math::
        A_{ij} = \mathrm{softmax}(s\, Q_j K_i^\top), \qquad
        m_{ij} = \tfrac1D \mathbf 1^\top A_{ij} V_i, \qquad
        q_{ij} = \lVert A_{ij} V_i \rVert_F^2

    Neither :math:`A` nor :math:`A V` is held for all pairs, in the forward or backward pass:
    :math:`q_{ij}` is the trace of :math:`A_{ij} V_i V_i^\top A_{ij}^\top`. To normalize
    :math:`A V` by mean and variance without rounding away the variance, use `pair_pool`.

    Args:
        query: :math:`Q`, (B, N, D, E).
        key: :math:`K`, (B, N, D, E).
        value: :math:`V`, (B, N, D, C).
        scale: :math:`s`.
        mask: (B, N) bool, True where the node exists; pairs with an absent node give zeros.
        backend: see `aurel.use_backend`.

    Returns:
        The token mean :math:`m`, (B, N, N, C), in the common dtype of the inputs, and the second
        moment :math:`q`, (B, N, N), in float32 at least; index [i, j] holds target (key, value) i
        and source (query) j.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.

    Source: section 3.2 of Luo et al., IJCAI 2022 (ME-GraphAU): attention between the features of
    two AUs, and the moments that the normalization behind it needs.
    """
    _check_arguments(query, key, value, mask)
    check_number("scale", scale)
    query, key, value = promote(query, key, value)
    dtype = wide_dtype(value)
    with without_autocast(query):
        wide = [tensor.to(dtype) for tensor in (query, key, value)]
        if mask is not None:
            wide = [tensor.where(mask[:, :, None, None], 0.0) for tensor in wide]
        wide_query, wide_key, wide_value = wide
        centered = wide_value - wide_value.mean(2, keepdim=True)
        gram = centered @ centered.mT
        weights, scatter = pair_pool(wide_query * scale, wide_key, gram, backend=backend)
        assert scatter is not None
        mean = weights @ wide_value
        second_moment = scatter + query.shape[2] * mean.square().sum(-1)
        if mask is not None:
            pair = pair_mask(mask)
            mean = mean.where(pair.unsqueeze(3), 0.0)
            second_moment = second_moment.where(pair, 0.0)
    return mean.to(value.dtype), second_moment


def _check_arguments(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError or TypeError unless these tensors fit together."""
    check_input("query", query, "B N D E")
    batch, nodes, tokens, width = query.shape
    check_input("key", key, "B N D E", query, B=batch, N=nodes, D=tokens, E=width)
    check_input("value", value, "B N D C", query, B=batch, N=nodes, D=tokens)
    check_mask(mask, query)
