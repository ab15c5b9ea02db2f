r"""Pairwise scores between the nodes of a graph: the smaller the score, the nearer the node.

Four metrics, each meaning what its name says:

========  =============================================================
l2        :math:`\sum_c (x_{ic} - x_{jc})^2` (ranks as the distance does)
l1        :math:`\sum_c |x_{ic} - x_{jc}|`
cosine    :math:`1 - x_i \cdot x_j / (|x_i| |x_j|)`, 1 where a norm is 0
dot       :math:`-x_i \cdot x_j`
========  =============================================================
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.precision import without_autocast

METRICS = ("l2", "l1", "cosine", "dot")

_LANES = 8  # width to which the candidates of a matrix product are padded


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def pairwise_scores_reference(x: Tensor, metric: str) -> Tensor:
    """Return the (B, N, N) scores of the table above, in at least float32."""
    x = at_least_float32(x)
    if metric in ("l2", "l1"):
        difference = x[:, :, None] - x[:, None]
        return difference.square().sum(-1) if metric == "l2" else difference.abs().sum(-1)
    if metric == "cosine":
        x = F.normalize(x, dim=-1)
        return 1 - x @ x.mT
    return -(x @ x.mT)


def pairwise_scores(x: Tensor, metric: str, mask: Tensor | None = None) -> Tensor:
    """Return (B, N, N) scores that order each row as `pairwise_scores_reference` does.

    What is the same for a whole row is left out where that saves rounding. NaN becomes +inf:
    a distance that is not known is the largest.
    """
    with without_autocast(x):
        wide = at_least_float32(x)
        dtype = wide.dtype
        if dtype == torch.float32 and metric != "l1" and _products_lose_bits(x.device.type):
            wide = wide.double()
        if metric == "l1":
            scores = _manhattan(wide)
        elif metric == "l2":
            products = _uncancelled_products(wide, mask)
            scores = torch.add(_squares(products)[:, None], products, alpha=-2)
        elif metric == "cosine":
            products = _products(wide)
            squares = _squares(products).clamp_min(1e-24)
            # Orders as the cosine does. With one rounding, in the division, equal cosines of
            # integer-valued features stay equal.
            scores = 0 - products * products.abs() / squares[:, None]
        else:
            scores = 0 - _products(wide)
    # A node that holds infinities is infinitely far by any distance, though not by a product.
    lowest = -torch.inf if metric == "dot" else torch.inf
    return scores.to(dtype).nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=lowest)


def _products(x: Tensor) -> Tensor:
    """Return the products of all pairs, (B, N, N).

    Columns are computed in whole vectors: each takes the same path through the product, so that
    duplicate nodes get bit-equal scores. It is faster than an odd width, too. What pads the
    columns of a sample is the next sample, for the last few a copy.
    """
    x = x.contiguous()
    batch, nodes, channels = x.shape
    width = nodes + -nodes % _LANES
    whole = max(0, batch - -(-(width - nodes) // max(nodes, 1)))
    products = x.new_empty(batch, nodes, width)
    columns = x.as_strided((whole, width, channels), (nodes * channels, channels, 1))
    torch.bmm(x[:whole], columns.mT, out=products[:whole])
    if whole < batch:
        padded = F.pad(x[whole:], (0, 0, 0, width - nodes))
        torch.bmm(x[whole:], padded.mT, out=products[whole:])
    return products[:, :, :nodes]


def _squares(products: Tensor) -> Tensor:
    """Return the squared norms of the nodes, (B, N)."""
    return products.diagonal(dim1=1, dim2=2)


def _uncancelled_products(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the products of all pairs; in a sample that lies off the origin, less a node of its.

    Off the origin, where the mean is more than half as long as the nodes are, the differences
    between products would cancel. Whether it is so, the products themselves tell.
    """
    products = _products(x)
    # |mean|^2 <= mean of |x|^2 / 4, both times the square of the number of nodes.
    if mask is None:
        near = products.sum((1, 2)) <= _squares(products).sum(1) * (x.shape[1] / 4)
    else:
        present = mask.to(x.dtype)
        total = torch.bmm(torch.bmm(present[:, None], products), present[:, :, None]).flatten()
        near = total <= (present * _squares(products)).sum(1) * present.sum(1) / 4
    if x.device.type == "cpu" and bool(near.all()):
        return products
    return _products(torch.where(near[:, None, None], x, x - _center(x, mask)))


def _products_lose_bits(device_type: str) -> bool:
    """Return whether the user let float32 products run in TF32 or bf16: too coarse to choose by."""
    backend = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    try:
        return backend.matmul.fp32_precision in ("tf32", "bf16")
    except AttributeError:  # torch 2.8
        return torch.get_float32_matmul_precision() != "highest"


def _center(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return each sample's node nearest to the mean, (B, 1, C), so that products do not cancel.

    Nodes that are absent or not finite do not count. A node, not the mean itself: less a node,
    integer-valued features stay integers, and their equal distances equal.
    """
    counts = x.sum(-1).isfinite()
    if mask is not None:
        counts = counts & mask
    weights = counts.to(x.dtype) / counts.sum(1, keepdim=True).clamp_min(1)
    samples = torch.arange(x.shape[0], device=x.device)
    first = x[samples, counts.byte().argmax(1)][:, None]
    # A weight of 0 does not silence NaN: such channels have the first node for their mean.
    shift = (torch.bmm(weights[:, None], x) - first).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    gaps = torch.linalg.vector_norm(x - (first + shift), dim=-1)
    return x[samples, gaps.masked_fill(~counts, torch.inf).argmin(1)][:, None]


def _manhattan(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return torch.cdist(x, x, p=1)
    # One node at a time against those after it: several times faster than cdist at AU sizes.
    scores = x.new_empty(x.shape[0], x.shape[1], x.shape[1])
    for i in range(x.shape[1]):
        row = (x[:, i:] - x[:, i : i + 1]).abs_().sum(-1)
        scores[:, i, i:] = row
        scores[:, i:, i] = row
    return scores
