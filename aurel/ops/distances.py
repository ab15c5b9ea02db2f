r"""Scores of pairs of a node and a source: the smaller the score, the nearer the source.

========  =============================================================
l2        :math:`\sum_c (s_{jc} - x_{ic})^2`
l1        :math:`\sum_c |s_{jc} - x_{ic}|`
cosine    :math:`1 - x_i \cdot s_j / (|x_i| |s_j|)`, 1 where a norm is 0
dot       :math:`-x_i \cdot s_j`
========  =============================================================

Each is one reduction over the channels of a pair, so equal nodes have equal scores at whatever
index; a product of matrices does not guarantee that.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from aurel.ops.precision import in_dtype, wide_dtype

Metric = Literal["l2", "l1", "cosine", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)

_BLOCK = 2**20  # differences computed at a time

_SMALLEST = 1e-30  # less than the squared norm of any scaled node other than zero


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if it is wider."""
    return in_dtype(x, wide_dtype(x))


def pairwise_scores_reference(
    x: Tensor, metric: str, sources: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Return the scores of the table above, plus `bias`, in at least float32.

    Without a bias, those of the cosine are -cos |cos| |x_i|^2, which have the order of the
    distance and are rounded once: equal cosines of integer-valued features stay equal.

    Args:
        x: nodes, (B, N, C).
        metric: "l2", "l1", "cosine" or "dot".
        sources: candidates, (B, M, C); None for `x` itself.
        bias: (N, M) or (B, N, M), or None.

    Returns:
        (B, N, M); +inf where the score is NaN.
    """
    # Of strided nodes, torch sums some rows in another order than others.
    x = at_least_float32(x).contiguous()
    sources = x if sources is None else at_least_float32(sources).to(x.dtype).contiguous()
    if metric == "cosine":
        x, sources = _scaled(x), _scaled(sources)
    target, source = x.unsqueeze(2), sources.unsqueeze(1)
    if metric == "l2":
        scores = (source - target).square().sum(-1)
    elif metric == "l1":
        scores = (source - target).abs().sum(-1)
    else:
        scores = _cosine_or_dot((target * source).sum(-1), x, sources, metric, bias)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def pairwise_scores(
    x: Tensor, metric: str, sources: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Return the scores of `pairwise_scores_reference`, computed a block of rows at a time."""
    sources = x if sources is None else sources
    batch, nodes, channels = x.shape
    step = max(1, _BLOCK // max(1, batch * sources.shape[1] * channels))
    if step >= nodes:
        return pairwise_scores_reference(x, metric, sources, bias)
    blocks = [slice(first, first + step) for first in range(0, nodes, step)]
    return torch.cat(
        [
            pairwise_scores_reference(
                x[:, block], metric, sources, None if bias is None else bias[..., block, :]
            )
            for block in blocks
        ],
        1,
    )


def approximate_scores(
    x: Tensor, metric: str, sources: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the scores by matrix products in float64, and a bound of their rounding errors.

    Args:
        x: (B, N, C).
        metric: "l2", "cosine" or "dot".
        sources: (B, M, C), or None for `x` itself.
        bias: (N, M) or (B, N, M), or None.

    Returns:
        (B, N, M) float64, +inf where a score is NaN, and (B, N, 1), which also covers the rounding
        of `pairwise_scores_reference` for float64 nodes.
    """
    scale = _scaled if metric == "cosine" else at_least_float32
    x = scale(x)
    wide = wide_sources = x.double()
    squares = source_squares = wide.square().sum(-1)
    if sources is not None:
        wide_sources = scale(sources.to(x.dtype)).double()
        source_squares = wide_sources.square().sum(-1)
    products = torch.bmm(wide, wide_sources.mT)
    if metric == "l2":
        scores = (squares[:, :, None] + source_squares[:, None]).sub_(products, alpha=2)
    else:
        scores = _cosine_or_dot(products, wide, wide_sources, metric, bias)
    largest = source_squares.nan_to_num(0.0, 0.0, 0.0).amax(1, keepdim=True)
    size = {
        "l2": squares + largest,
        "cosine": squares + 1,
        "dot": (squares * largest).sqrt(),
    }[metric].unsqueeze(2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
        finite = bias.double().nan_to_num(0.0, 0.0, 0.0).abs()
        size = size + (finite.amax(-1, keepdim=True) if bias.shape[-1] else 0)
    # The smallest number is for terms of `pairwise_scores_reference` that underflow.
    error = (x.shape[2] + 8) * (torch.finfo(torch.float64).eps * size + torch.finfo(x.dtype).tiny)
    return scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), error


def _cosine_or_dot(
    products: Tensor, x: Tensor, sources: Tensor, metric: str, bias: Tensor | None
) -> Tensor:
    """Return the scores from the products of pairs; for the cosine, of scaled nodes."""
    if metric == "dot":
        return -products
    source_squares = sources.square().sum(-1).clamp_min(_SMALLEST)[:, None]
    if bias is None:
        ordered = -products * products.abs() / source_squares
        return ordered.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
    squares = x.square().sum(-1).clamp_min(_SMALLEST)[:, :, None]
    # Two roots: the product of the squares of two zero nodes would underflow to zero.
    return 1 - products / (squares.sqrt() * source_squares.sqrt())


def _scaled(x: Tensor) -> Tensor:
    """Return nodes times a power of two that brings the largest channel into [1/2, 1)."""
    x = at_least_float32(x)
    if x.shape[-1] == 0:
        return x
    largest = x.abs().amax(-1, keepdim=True)
    exponent = torch.frexp(largest.nan_to_num(1.0, 1.0, 1.0)).exponent
    half = exponent // 2  # in two steps, since 2 ** -exponent may overflow
    return torch.ldexp(torch.ldexp(x, -half), half - exponent)
