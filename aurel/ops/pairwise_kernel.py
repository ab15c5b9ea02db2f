"""The CPU kernels of `pairwise_marginals`, and the log domain for samples that these leave out."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops import pairwise_halves, pairwise_walk
from aurel.ops.registration import kernel

_MAX_NODES = 16  # of more, products of matrices are as fast


def is_served(nodes: int, pairs: bool) -> bool:
    """Return whether the kernels serve a call; plain torch does the others."""
    return 0 < nodes <= _MAX_NODES and not pairs


def forward(
    logits: Tensor, couplings: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log Z (B,), logits of the marginals (B, N) and the marginals (B, N)."""
    limit = pairwise_halves.LIMITS[torch.float64]
    compute = kernel("numba", "pairwise_marginals")
    log_partition, marginal_logits, marginals, far = compute(logits, couplings, mask, limit)
    if far is not None:
        rows = torch.from_numpy(far)
        own = _far_samples(rows, logits, couplings, mask)
        found, found_logits, _ = pairwise_walk.forward(*own, False)
        log_partition[rows] = found.to(logits.dtype)
        marginal_logits[rows] = found_logits.to(logits.dtype)
        marginals[rows] = _marginals(found_logits, own[2]).to(logits.dtype)
    return log_partition, marginal_logits, marginals


def _marginals(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits.sigmoid() if mask is None else logits.sigmoid().masked_fill(~mask, 0)


def backward(
    grad_partition: Tensor | None,
    grad_logits: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of logits and couplings; None is a gradient of 0."""
    limit = pairwise_halves.LIMITS[torch.float64]
    compute = kernel("numba", "pairwise_marginals_backward")
    given = (logits, couplings, mask)
    grads = (grad_partition, grad_logits, grad_marginals)
    total, moments, far = compute(*grads, *given, limit)
    if far is not None:
        rows = torch.from_numpy(far)
        own = _far_samples(rows, *given)
        outputs = pairwise_walk.forward(*own, False)
        marginals = _marginals(outputs[1], own[2])
        of_partition, of_logits, of_marginals = (
            torch.zeros_like(out) if grad is None else grad[rows].double()
            for grad, out in zip(grads, (*outputs[:2], marginals), strict=True)
        )
        of_logits = of_logits + of_marginals * marginals * (1 - marginals)
        part, part_of_moments = pairwise_walk.backward(
            of_partition, of_logits, outputs[2], *outputs, *own
        )
        total[rows] = part.to(total.dtype)
        moments += part_of_moments
    return total, moments


def _far_samples(
    rows: Tensor, logits: Tensor, couplings: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments of some samples in float64."""
    return logits[rows].double(), couplings.double(), None if mask is None else mask[rows]
