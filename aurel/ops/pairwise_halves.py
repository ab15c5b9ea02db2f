r"""Sums over all states of N nodes as products of matrices, without a (B, 2^N) tensor.

The nodes are split into two halves, a state s into a and b. Then
:math:`e^{E(s)} = e^{u_A \cdot a}\, W_{ab}\, e^{u_B \cdot b}`, where W, 2^(N/2) x 2^(N/2), holds the
couplings and is the same in the whole batch. A weighted sum over states whose weight is
:math:`\sum_k l_k(a)\, r_k(b)` takes K products with W. Factors are scaled by their largest entry:
nothing underflows where `exponent_range` is within the limit of the dtype.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aurel.ops.pairwise_states import half_couplings, states_between, without_impossible

LIMITS = {torch.float64: 600.0, torch.float32: 70.0}


def exponent_range(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    """Return a bound of the difference between two energies of a sample, (B,)."""
    if mask is not None:
        logits = logits.masked_fill(~mask, 0)
    return logits.abs().sum(1) + half_couplings(couplings).abs().sum()


class Halves(NamedTuple):
    """Energies of the states of either half, and of the couplings of both; or their exponentials.

    Attributes:
        low: (B, 2^L), of the fields of the first L nodes.
        high: (B, 2^H), of the fields of the others.
        joint: (2^L, 2^H), of all couplings.
        low_states: (2^L, L).
        high_states: (2^H, H).
    """

    low: Tensor
    high: Tensor
    joint: Tensor
    low_states: Tensor
    high_states: Tensor


def energies_of_halves(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Halves:
    """Return energies whose sum is that of a state; -inf where an absent node is 1."""
    nodes = logits.shape[1]
    split = nodes // 2
    low_states = states_between(0, 2**split, split, logits)
    high_states = states_between(0, 2 ** (nodes - split), nodes - split, logits)
    if mask is not None:
        logits = logits.masked_fill(~mask, 0)
    low, high = logits[:, :split] @ low_states.T, logits[:, split:] @ high_states.T
    if mask is not None:
        low = without_impossible(low, low_states, mask[:, :split])
        high = without_impossible(high, high_states, mask[:, split:])
    half = half_couplings(couplings)
    across = half[:split, split:] + half[split:, :split].T
    joint = low_states @ across @ high_states.T
    joint += ((low_states @ half[:split, :split]) * low_states).sum(1)[:, None]
    joint += ((high_states @ half[split:, split:]) * high_states).sum(1)
    return Halves(low, high, joint, low_states, high_states)


def _exponentials(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> tuple[Halves, Tensor]:
    """Return the exponentials, each up to a scale, and the logarithm of the scale of all, (B,)."""
    halves = energies_of_halves(logits, couplings, mask)
    low, high = (part.amax(1, keepdim=True) for part in halves[:2])
    joint = halves.joint.amax()
    scaled = halves._replace(
        low=(halves.low - low).exp(),
        high=(halves.high - high).exp(),
        joint=(halves.joint - joint).exp(),
    )
    return scaled, (low + high).squeeze(1) + joint


def _weights_of_halves(factors: Halves) -> tuple[Tensor, Tensor]:
    """Return the weight of each state of either half, (B, 2^L) and (B, 2^H)."""
    low = factors.low * (factors.high @ factors.joint.T)
    return low, factors.high * (factors.low @ factors.joint)


def _active_and_inactive(
    factors: Halves, low: Tensor, high: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the weight of the states in which node i is 1, and is 0; 1 where it is absent."""
    parts = (low, factors.low_states), (high, factors.high_states)
    active = torch.cat([weights @ states for weights, states in parts], 1)
    inactive = torch.cat([weights @ (1 - states) for weights, states in parts], 1)
    if mask is None:
        return active, inactive
    return active.masked_fill(~mask, 1), inactive.masked_fill(~mask, 1)


def _outer(states: Tensor) -> Tensor:
    """Return s_i s_j of each state, (S, N * N)."""
    return (states[:, :, None] * states[:, None]).flatten(1)


def forward(
    logits: Tensor, couplings: Tensor, mask: Tensor | None, pairs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log Z (B,), logits of the marginals (B, N) and the marginals of pairs (B, N, N)."""
    factors, log_scale = _exponentials(logits, couplings, mask)
    low, high = _weights_of_halves(factors)
    total = low.sum(1)
    active, inactive = _active_and_inactive(factors, low, high, mask)
    log_partition = total.log() + log_scale
    marginal_logits = active.log() - inactive.log()
    if not pairs:
        return log_partition, marginal_logits, logits.new_empty(0)
    split = factors.low_states.shape[1]
    total = total[:, None, None]
    joint = logits.new_empty(*logits.shape, logits.shape[1])
    joint[:, :split, :split] = (low @ _outer(factors.low_states)).unflatten(1, (split, split))
    rest = logits.shape[1] - split
    joint[:, split:, split:] = (high @ _outer(factors.high_states)).unflatten(1, (rest, rest))
    given = (factors.high[:, None] * factors.high_states.T) @ factors.joint.T
    across = (given * factors.low[:, None]) @ factors.low_states
    joint[:, split:, :split], joint[:, :split, split:] = across, across.mT
    return log_partition, marginal_logits, joint / total


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
    """Return the gradients of logits and couplings; `grad_pairs` is empty where unused.

    Each state has a score, of which the gradient of an energy is p(s) times: that of log Z is 1, of
    the logit of a marginal s_i / p_i - (1 - s_i) / (1 - p_i), of p_ij it is s_i s_j - p_ij.
    """
    factors, _ = _exponentials(logits, couplings, mask)
    low, high = _weights_of_halves(factors)
    total = low.sum(1, keepdim=True)
    active, inactive = _active_and_inactive(factors, low, high, mask)
    if mask is not None:
        grad_logits = grad_logits.masked_fill(~mask, 0)
    factors = factors._replace(low=factors.low / total)
    split = factors.low_states.shape[1]
    if_active, if_inactive = grad_logits * total / active, grad_logits * total / inactive

    def score(states: Tensor, nodes: slice) -> Tensor:
        return if_active[:, nodes] @ states.T - if_inactive[:, nodes] @ (1 - states).T

    low_score = score(factors.low_states, slice(None, split)) + grad_partition[:, None]
    high_score = score(factors.high_states, slice(split, None))
    if grad_pairs.numel() > 0:
        low_score -= (grad_pairs * pair_marginals).sum((1, 2))[:, None]
        low_score += grad_pairs[:, :split, :split].flatten(1) @ _outer(factors.low_states).T
        high_score += grad_pairs[:, split:, split:].flatten(1) @ _outer(factors.high_states).T
    terms = [(low_score, None), (None, high_score)]
    if grad_pairs.numel() > 0:
        across = grad_pairs[:, :split, split:] + grad_pairs[:, split:, :split].mT
        given = across @ factors.high_states.T
        terms += [(factors.low_states[:, i], given[:, i]) for i in range(split)]
    return _sum_over_states(factors, terms)


def _sum_over_states(
    factors: Halves, terms: list[tuple[Tensor | None, Tensor | None]]
) -> tuple[Tensor, Tensor]:
    """Sum s and s s^T / 2 over states, weighted by p(s) times a score, the sum of `terms`.

    Each term is a factor of either half; None is 1.
    """
    low_sum, high_sum = torch.zeros_like(factors.low), torch.zeros_like(factors.high)
    moments = torch.zeros_like(factors.joint)
    for low_score, high_score in terms:
        low = factors.low if low_score is None else factors.low * low_score
        high = factors.high if high_score is None else factors.high * high_score
        low_sum.addcmul_(low, high @ factors.joint.T)
        high_sum.addcmul_(high, low @ factors.joint)
        moments.addmm_(low.T, high)
    moments *= factors.joint
    low_states, high_states = factors.low_states, factors.high_states
    across = low_states.T @ moments @ high_states
    within_low = (low_states * moments.sum(1)[:, None]).T @ low_states
    within_high = (high_states * moments.sum(0)[:, None]).T @ high_states
    both = torch.cat((torch.cat((within_low, across), 1), torch.cat((across.T, within_high), 1)), 0)
    grad_logits = torch.cat((low_sum @ low_states, high_sum @ high_states), 1)
    return grad_logits, half_couplings(both)
