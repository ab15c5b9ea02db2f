r"""Sums over all states of N nodes as products of matrices, without a (B, 2^N) tensor.

The nodes are split into two halves, a state s into a and b. Then
:math:`e^{E(s)} = e^{u_A \cdot a}\, W_{ab}\, e^{u_B \cdot b}`, where W, 2^(N/2) x 2^(N/2), holds the
couplings and is the same in the whole batch. A weighted sum over states whose weight is
:math:`\sum_k l_k(a)\, r_k(b)` takes K products with W. Factors are scaled by their largest entry:
nothing underflows where `exponent_range` is within the limit of the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from aurel.ops.pairwise_states import half_couplings, states_between, without_impossible

# Factors of either half, whose product is part of the score of a state; None is 1.
_Term = tuple[Tensor | None, Tensor | None]

_CPU_BLOCK = 2**15  # states of a half for all samples of a block
LIMITS = {torch.float64: 600.0, torch.float32: 70.0}


def exponent_range(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    """Return a bound of the difference between two energies of a sample, (B,)."""
    if mask is not None:
        logits = logits.masked_fill(~mask, 0)
    return logits.abs().sum(1) + half_couplings(couplings).abs().sum()


class Joint(NamedTuple):
    """The couplings of the states of both halves.

    Attributes:
        values: energies (2^L, 2^H), or their exponentials.
        low_states: (2^L, L), of the first L nodes.
        high_states: (2^H, H), of the others.
    """

    values: Tensor
    low_states: Tensor
    high_states: Tensor


def joint_energies(couplings: Tensor) -> Joint:
    """Return the energies of the couplings (N, N) in all states, those of N // 2 nodes by row."""
    nodes = couplings.shape[0]
    split = nodes // 2
    low_states = states_between(0, 2**split, split, couplings)
    high_states = states_between(0, 2 ** (nodes - split), nodes - split, couplings)
    half = half_couplings(couplings)
    across = half[:split, split:] + half[split:, :split].T
    joint = low_states @ across @ high_states.T
    joint += ((low_states @ half[:split, :split]) * low_states).sum(1)[:, None]
    joint += ((high_states @ half[split:, split:]) * high_states).sum(1)
    return Joint(joint, low_states, high_states)


def field_energies(logits: Tensor, mask: Tensor | None, joint: Joint) -> tuple[Tensor, Tensor]:
    """Return the energies of the fields for either half, (B, 2^L) and (B, 2^H).

    They are -inf where an absent node is 1.
    """
    _, low_states, high_states = joint
    split = low_states.shape[1]
    if mask is None:
        return logits[:, :split] @ low_states.T, logits[:, split:] @ high_states.T
    logits = logits.masked_fill(~mask, 0)
    low, high = logits[:, :split] @ low_states.T, logits[:, split:] @ high_states.T
    return (
        without_impossible(low, low_states, mask[:, :split]),
        without_impossible(high, high_states, mask[:, split:]),
    )


class _Factors(NamedTuple):
    low: Tensor  # (B, 2^L)
    high: Tensor  # (B, 2^H)
    joint: Tensor  # (2^L, 2^H)
    low_states: Tensor
    high_states: Tensor
    log_scale: Tensor  # (B,), what the product of the three is divided by


def _blocks(
    logits: Tensor, couplings: Tensor, mask: Tensor | None
) -> Iterator[tuple[slice, _Factors, Tensor | None]]:
    """Yield the factors of some samples, whose tensors stay in the cache of a CPU, and their mask.

    The couplings are computed once.
    """
    joint = joint_energies(couplings)
    top = joint.values.amax()
    weights = (joint.values - top).exp()
    batch = logits.shape[0]
    size = batch if logits.device.type != "cpu" else _CPU_BLOCK // joint.high_states.shape[0]
    size = max(1, size)
    for start in range(0, max(batch, 1), size):
        rows = slice(start, start + size)
        own = None if mask is None else mask[rows]
        low, high = field_energies(logits[rows], own, joint)
        low_top, high_top = low.amax(1, keepdim=True), high.amax(1, keepdim=True)
        scale = (low_top + high_top).squeeze(1) + top
        low, high = (low - low_top).exp(), (high - high_top).exp()
        yield rows, _Factors(low, high, weights, joint.low_states, joint.high_states, scale), own


def _weights_of_halves(factors: _Factors) -> tuple[Tensor, Tensor]:
    """Return the weight of each state of either half, (B, 2^L) and (B, 2^H)."""
    low = factors.low * (factors.high @ factors.joint.T)
    return low, factors.high * (factors.low @ factors.joint)


def _active_and_inactive(
    factors: _Factors, low: Tensor, high: Tensor, mask: Tensor | None
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
    batch, nodes = logits.shape
    log_partition, marginal_logits = logits.new_empty(batch), torch.empty_like(logits)
    joint = logits.new_empty((batch, nodes, nodes) if pairs else (0,))
    for rows, factors, own in _blocks(logits, couplings, mask):
        low, high = _weights_of_halves(factors)
        log_partition[rows] = low.sum(1).log() + factors.log_scale
        active, inactive = _active_and_inactive(factors, low, high, own)
        marginal_logits[rows] = active.log() - inactive.log()
        if pairs:
            _pair_marginals(factors, low, high, joint[rows])
    return log_partition, marginal_logits, joint


def _pair_marginals(factors: _Factors, low: Tensor, high: Tensor, out: Tensor) -> None:
    """Write the marginals of pairs, (B, N, N)."""
    split, rest = factors.low_states.shape[1], factors.high_states.shape[1]
    out[:, :split, :split] = (low @ _outer(factors.low_states)).unflatten(1, (split, split))
    out[:, split:, split:] = (high @ _outer(factors.high_states)).unflatten(1, (rest, rest))
    given = (factors.high[:, None] * factors.high_states.T) @ factors.joint.T
    across = (given * factors.low[:, None]) @ factors.low_states
    out[:, split:, :split], out[:, :split, split:] = across, across.mT
    out /= low.sum(1)[:, None, None]


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
    if mask is not None:
        grad_logits = grad_logits.masked_fill(~mask, 0)
    total, moments = torch.empty_like(logits), torch.zeros_like(couplings)
    for rows, factors, own in _blocks(logits, couplings, mask):
        low, high = _weights_of_halves(factors)
        weight = low.sum(1, keepdim=True)
        active, inactive = _active_and_inactive(factors, low, high, own)
        given = grad_logits[rows] * weight
        low_score, high_score = _scores(factors, given / active, given / inactive)
        low_score += grad_partition[rows, None]
        terms: list[_Term] = [(low_score, None), (None, high_score)]
        if grad_pairs.numel() > 0:
            low_score -= (grad_pairs[rows] * pair_marginals[rows]).sum((1, 2))[:, None]
            terms += _add_pairs(factors, low_score, high_score, grad_pairs[rows])
        factors = factors._replace(low=factors.low / weight)
        total[rows], part = _sum_over_states(factors, terms)
        moments += part
    return total, half_couplings(moments)


def _scores(factors: _Factors, if_active: Tensor, if_inactive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the score of each state of either half, (B, 2^L) and (B, 2^H)."""
    low, high = factors.low_states, factors.high_states
    split = low.shape[1]
    return (
        if_active[:, :split] @ low.T - if_inactive[:, :split] @ (1 - low).T,
        if_active[:, split:] @ high.T - if_inactive[:, split:] @ (1 - high).T,
    )


def _add_pairs(
    factors: _Factors, low_score: Tensor, high_score: Tensor, grad_pairs: Tensor
) -> list[_Term]:
    """Add the scores of pairs within a half in place; return those of pairs across."""
    split = factors.low_states.shape[1]
    low_score += grad_pairs[:, :split, :split].flatten(1) @ _outer(factors.low_states).T
    high_score += grad_pairs[:, split:, split:].flatten(1) @ _outer(factors.high_states).T
    across = grad_pairs[:, :split, split:] + grad_pairs[:, split:, :split].mT
    given = across @ factors.high_states.T
    return [(factors.low_states[:, i], given[:, i]) for i in range(split)]


def _sum_over_states(factors: _Factors, terms: list[_Term]) -> tuple[Tensor, Tensor]:
    """Sum s and s s^T over states, weighted by p(s) times a score, the sum of `terms`.

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
    return grad_logits, both
