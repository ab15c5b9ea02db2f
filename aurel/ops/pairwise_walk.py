"""Sums over all states of N nodes in the log domain, block after block: any finite energies."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from aurel.ops.pairwise_states import (
    energies_of,
    states_between,
    without_absent,
    without_impossible,
)

_BLOCK = 2**20  # entries of the largest tensor, (B, N, S)


def _blocks(
    logits: Tensor, couplings: Tensor, mask: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield states (S, N), their energies (B, S), and these with -inf where a node is absent."""
    batch, nodes = logits.shape
    size = max(1, _BLOCK // max(1, batch * nodes * (1 if mask is None else nodes)))
    free_logits, free_couplings = without_absent(logits, couplings, mask)
    for start in range(0, 2**nodes, size):
        states = states_between(start, min(start + size, 2**nodes), nodes, logits)
        energies = energies_of(states, free_logits, free_couplings)
        yield states, energies, without_impossible(energies, states, mask)


def forward(
    logits: Tensor, couplings: Tensor, mask: Tensor | None, pairs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log Z (B,), logits of the marginals (B, N) and the marginals of pairs (B, N, N)."""
    batch, nodes = logits.shape
    log_partition = logits.new_full((batch,), -torch.inf)
    active, inactive = logits.new_full((2, batch, nodes), -torch.inf)
    for states, energies, possible in _blocks(logits, couplings, mask):
        log_partition = torch.logaddexp(log_partition, possible.logsumexp(1))
        each = energies[:, None].expand(-1, nodes, -1)
        for_active = each.masked_fill(states.T == 0, -torch.inf).logsumexp(2)
        for_inactive = each.masked_fill(states.T == 1, -torch.inf).logsumexp(2)
        active, inactive = (
            torch.logaddexp(active, for_active),
            torch.logaddexp(inactive, for_inactive),
        )
    if not pairs:
        return log_partition, active - inactive, logits.new_empty(0)
    joint = logits.new_zeros(batch, nodes, nodes)
    for states, _, possible in _blocks(logits, couplings, mask):
        probabilities = (possible - log_partition[:, None]).exp()
        joint += (probabilities[:, None] * states.T) @ states
    return log_partition, active - inactive, joint


def backward(
    grad_partition: Tensor,
    grad_logits: Tensor,
    grad_pairs: Tensor,
    log_partition: Tensor,
    marginal_logits: Tensor,
    pair_marginals: Tensor,
    logits: Tensor,
    couplings: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of logits and couplings; see `pairwise_halves.backward`."""
    if mask is not None:
        grad_logits = grad_logits.masked_fill(~mask, 0)
    active = F.logsigmoid(marginal_logits)[:, :, None]
    inactive = F.logsigmoid(-marginal_logits)[:, :, None]
    total, moments = torch.zeros_like(logits), couplings.new_zeros(couplings.shape)
    for states, _, possible in _blocks(logits, couplings, mask):
        log_probabilities = possible - log_partition[:, None]
        probabilities = log_probabilities.exp()
        on = states.T == 1
        given = (log_probabilities[:, None] - torch.where(on, active, inactive)).exp()
        sign = 2 * states.T - 1
        weights = (grad_logits[:, :, None] * sign * given).sum(1)
        weights += probabilities * grad_partition[:, None]
        if grad_pairs.numel() > 0:
            score = ((states @ grad_pairs) * states).sum(2)
            score -= (grad_pairs * pair_marginals).sum((1, 2))[:, None]
            weights += probabilities * score
        total += weights @ states
        moments += (states * weights.sum(0)[:, None]).T @ states
    return total, moments.fill_diagonal_(0) / 2
