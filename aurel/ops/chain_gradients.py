"""Gradients of `chain_marginals` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.chain_states import (
    MAX_LOGIT,
    MAX_STAY,
    halves,
    log_messages,
    marginal_logits,
    state_bits,
    state_energies,
)


def chain_gradients(
    grad_partition: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    *,
    mask: Tensor | None,
    past: bool,
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
    energies = state_energies(logits, couplings, mask)
    forward, backward = log_messages(energies, stay)
    sums = forward.logsumexp(2, keepdim=True)
    message = (forward - sums).exp()
    behind = (backward + sums - sums[:, -1:]).exp()
    weight = (energies[:, 1:] + sums[:, :-1] - sums[:, 1:]).exp()
    change = stay.double().clamp(-MAX_STAY, MAX_STAY).neg().exp()
    source = _sources(grad_marginals, forward if past else forward + backward)
    ahead = _ahead(source if past else source * behind, grad_partition, weight, change)
    before = torch.zeros_like(message) if past else _before(source * message, weight, change)
    slope = message * ahead + before * behind
    if mask is not None:
        slope = slope.where(mask[..., None], 0)
    bits = state_bits(logits.shape[2], logits)
    pairs = bits.T @ (slope.sum((0, 1))[:, None] * bits)
    first, second = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    grad_stay = _changes(message[:, :-1], weight * ahead[:, 1:], change)
    if not past:
        linked = (before + source * message)[:, :-1]
        grad_stay = grad_stay + _changes(linked, weight * behind[:, 1:], change)
    if len(stay) == 1:
        grad_stay = grad_stay.sum(0, keepdim=True)
    return slope @ bits, pairs[first, second], grad_stay.where(stay.abs() <= MAX_STAY, 0)


def _sources(grad_marginals: Tensor | None, joint: Tensor) -> Tensor:
    """Return the gradient with respect to the probability of each state, (B, T, 2^N)."""
    if grad_marginals is None:
        return torch.zeros_like(joint)
    odds = marginal_logits(joint)
    grad = grad_marginals.double().where(odds.abs() < MAX_LOGIT, 0)
    bits = state_bits(odds.shape[2], odds)
    active, inactive = grad * (1 + odds.neg().exp()), grad * (1 + odds.exp())
    return active @ bits.T - inactive @ (1 - bits).T


def _ahead(source: Tensor, last: Tensor | None, weight: Tensor, change: Tensor) -> Tensor:
    """Return A, (B, T, 2^N)."""
    value = source[:, -1] if last is None else source[:, -1] + last.double()[:, None]
    values = [value]
    for t in range(source.shape[1] - 2, -1, -1):
        value = source[:, t] + _step(weight[:, t] * value, change[:, t])
        values.append(value)
    return torch.stack(values[::-1], 1)


def _before(source: Tensor, weight: Tensor, change: Tensor) -> Tensor:
    """Return B, (B, T, 2^N)."""
    values = [torch.zeros_like(source[:, 0])]
    for t in range(1, source.shape[1]):
        linked = values[-1] + source[:, t - 1]
        values.append(weight[:, t - 1] * _step(linked, change[:, t - 1]))
    return torch.stack(values, 1)


def _changes(before: Tensor, behind: Tensor, change: Tensor) -> Tensor:
    """Return minus the sums over changes of each action unit, (B, T - 1, N)."""
    units = change.shape[-1]
    steps = [before]
    for i in range(units - 1):
        steps.append(_mix(steps[-1], i, change[..., i]))
    found = []
    for i in range(units - 1, -1, -1):
        inactive, active = halves(steps[i], i)
        left, right = halves(behind, i)
        found.append(-change[..., i] * (left * active + right * inactive).sum((-2, -1)))
        behind = _mix(behind, i, change[..., i])
    return torch.stack(found[::-1], -1)


def _step(message: Tensor, change: Tensor) -> Tensor:
    """Multiply a message (B, 2^N) by the matrices of all action units."""
    for i in range(change.shape[-1]):
        message = _mix(message, i, change[..., i])
    return message


def _mix(message: Tensor, unit: int, change: Tensor) -> Tensor:
    """Multiply a message (..., 2^N) by the matrix of one action unit."""
    inactive, active = halves(message, unit)
    change = change[..., None, None]
    pairs = (inactive + change * active, active + change * inactive)
    return torch.stack(pairs, -2).flatten(-3)
