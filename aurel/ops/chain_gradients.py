"""Gradients of `chain_marginals` from scaled messages."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.chain_scan import chain_scan, mix, odds_of_units, scaled_messages
from aurel.ops.chain_states import MAX_LOGIT, MAX_STAY, halves, state_bits, state_energies


def chain_gradients(
    grad_partition: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    *,
    mask: Tensor | None,
    past: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the gradients of logits, couplings of pairs and costs, in float64.

    With forward messages a, of sum 1, backward messages b, :math:`\sum_y a_t b_t = 1`, and
    :math:`\rho_t = \psi_t z_{t-1} / z_t`, where z are the sums of unscaled forward messages, the
    gradient of the log-potentials of frame t is

    .. math::
        D_t = a_t A_t + B_t b_t, \qquad A_t = G_t b_t + M \rho_{t+1} A_{t+1}, \qquad
        B_t = \rho_t M (B_{t-1} + G_{t-1} a_{t-1})

    where :math:`G_t(y)` is the gradient with respect to the probability of state y. In filtering,
    where marginals do not depend on later frames, :math:`G_t` stands alone in A, and B is 0. The
    log-partition adds its own gradient, times :math:`b_T = 1`, to the last A.
    """
    found = scaled_messages(state_energies(logits, couplings, mask), stay, past, impl)
    message, behind, weight, change, _ = found
    source = _sources(grad_marginals, message * behind)
    zero = message.new_zeros(len(message))
    last = zero if grad_partition is None else grad_partition.double()
    ahead, _ = chain_scan(weight, source * behind, last, change, True, impl)
    linked = source * message
    slope = message * ahead
    grad_stay = _changes(message[:, :-1], weight[:, 1:] * ahead[:, 1:], change)
    if not past:
        before, _ = chain_scan(weight, linked, zero, change, False, impl)
        slope = slope + before * behind
        linked = (before + linked)[:, :-1]
        grad_stay = grad_stay + _changes(linked, weight[:, 1:] * behind[:, 1:], change)
    if mask is not None:
        slope = slope.where(mask[..., None], 0)
    bits = state_bits(logits.shape[2], logits)
    pairs = bits.T @ (slope.sum((0, 1))[:, None] * bits)
    first, second = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    if len(stay) == 1:
        grad_stay = grad_stay.sum(0, keepdim=True)
    return slope @ bits, pairs[first, second], grad_stay.where(stay.abs() <= MAX_STAY, 0)


def _sources(grad_marginals: Tensor | None, joint: Tensor) -> Tensor:
    """Return the gradient with respect to the probability of each state, (B, T, 2^N)."""
    if grad_marginals is None:
        return torch.zeros_like(joint)
    odds = odds_of_units(joint)
    grad = grad_marginals.double().where(odds.abs() < MAX_LOGIT, 0)
    bits = state_bits(odds.shape[2], odds)
    active, inactive = grad * (1 + odds.neg().exp()), grad * (1 + odds.exp())
    return active @ bits.T - inactive @ (1 - bits).T


def _changes(before: Tensor, behind: Tensor, change: Tensor) -> Tensor:
    """Return minus the sums over changes of each action unit, (B, T - 1, N)."""
    units = change.shape[-1]
    steps = [before]
    for i in range(units - 1):
        steps.append(mix(steps[-1], i, change[..., i]))
    found = []
    for i in range(units - 1, -1, -1):
        inactive, active = halves(steps[i], i)
        left, right = halves(behind, i)
        found.append(-change[..., i] * (left * active + right * inactive).sum((-2, -1)))
        behind = mix(behind, i, change[..., i])
    return torch.stack(found[::-1], -1)
