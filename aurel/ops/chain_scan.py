"""Recurrences over the states of N binary action units along a video, in products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aurel.ops.chain_states import MAX_LOGIT, MAX_STAY, halves
from aurel.ops.registration import operator

LEAST = 1e-300


class Messages(NamedTuple):
    r"""Scaled messages of a chain, with changes and potentials.

    Attributes:
        forward: :math:`a_t`, (B, T, 2^N), of sum 1.
        backward: :math:`b_t`, (B, T, 2^N), :math:`\sum_y a_t b_t = 1`; of filtering 1, (B, T, 1).
        weight: :math:`\psi_t z_{t-1} / z_t`, (B, T, 2^N), where z are the sums of unscaled forward
            messages and the first :math:`z_0` is 1.
        change: :math:`\exp(-s)`, (B, T - 1, N) or (1, T - 1, N).
        log_partition: :math:`\log z_T`, (B,).
    """

    forward: Tensor
    backward: Tensor
    weight: Tensor
    change: Tensor
    log_partition: Tensor


def scaled_messages(energies: Tensor, stay: Tensor, past: bool, impl: str) -> Messages:
    """Return the messages of a chain.

    Args:
        energies: (B, T, 2^N) float64, see `state_energies`.
        stay: costs of a change, (B, T - 1, N) or (1, T - 1, N).
        past: whether marginals are from the frames up to each one alone (filtering).
        impl: "torch" or "triton".
    """
    top = energies.amax(2, keepdim=True)
    potentials = (energies - top).exp()
    change = stay.double().clamp(-MAX_STAY, MAX_STAY).neg().exp()
    ones = energies.new_ones(len(energies))
    forward, logs = chain_scan(potentials, None, ones, change, False, impl)
    backward = torch.ones_like(top)
    if not past:
        backward, _ = chain_scan(potentials, None, ones, change, True, impl)
        backward = backward / (forward * backward).sum(2, keepdim=True)
    log_partition = (logs + top.squeeze(2)).sum(1)
    return Messages(forward, backward, potentials / logs.exp()[..., None], change, log_partition)


def odds_of_units(joint: Tensor) -> Tensor:
    """Return the logits of marginals, (..., N), from probabilities (..., 2^N) of any sum."""
    odds = []
    for i in range(joint.shape[-1].bit_length() - 1):
        inactive, active = (half.sum((-2, -1)).clamp(min=LEAST) for half in halves(joint, i))
        odds.append(active.log() - inactive.log())
    return torch.stack(odds, -1).clamp(-MAX_LOGIT, MAX_LOGIT)


def mix(message: Tensor, unit: int, change: Tensor) -> Tensor:
    """Multiply a message (..., 2^N) by the matrix of one action unit."""
    inactive, active = halves(message, unit)
    change = change[..., None, None]
    pairs = (inactive + change * active, active + change * inactive)
    return torch.stack(pairs, -2).flatten(-3)


def chain_scan_reference(
    weights: Tensor, sources: Tensor | None, first: Tensor, change: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Define `chain_scan`."""
    frames = weights.shape[1]
    x = first[:, None].expand(-1, weights.shape[2])
    found, logs = [], []
    for i in range(frames):
        t = frames - 1 - i if reverse else i
        if reverse:
            x = x if sources is None else x + sources[:, t]
            found.append(x)
        x = weights[:, t] * x
        if sources is None:
            total = x.sum(1, keepdim=True)
            x = x / total
            logs.append(total.log().squeeze(1))
        if not reverse:
            found.append(x)
            x = x if sources is None else x + sources[:, t]
        if i < frames - 1:
            step = change[:, t - 1 if reverse else t]
            for unit in range(step.shape[-1]):
                x = mix(x, unit, step[:, unit])
    order = -1 if reverse else 1
    sums = weights.new_zeros(weights.shape[:2]) if not logs else torch.stack(logs[::order], 1)
    return torch.stack(found[::order], 1), sums


@operator(
    shapes=lambda call: (
        torch.empty_like(call.weights, memory_format=torch.contiguous_format),
        call.weights.new_empty(call.weights.shape[:2]),
    ),
    definition=lambda call: chain_scan_reference(
        call.weights, call.sources, call.first, call.change, call.reverse
    ),
    flops=None,
    kernels=("triton",),
    gradient=None,
)
def chain_scan(
    weights: Tensor,
    sources: Tensor | None,
    first: Tensor,
    change: Tensor,
    reverse: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    r"""Return y of all frames of a recurrence, and logarithms of sums.

    .. math::
        y_t = w_t x_t, \quad x_{t+1} = M_t (y_t + s_t), \qquad\text{or in reverse}\qquad
        y_t = x_t + s_t, \quad x_{t-1} = M_{t-1} (w_t y_t)

    where :math:`M_t` is the product of the matrices of all action units. Without s, the product
    with w is divided by its sum.

    Args:
        weights: w, (B, T, 2^N) float64.
        sources: s, (B, T, 2^N) float64, or None.
        first: every state of the first x, (B,) float64.
        change: :math:`\exp(-s)` of the costs of a change, (B, T - 1, N) or (1, T - 1, N) float64.
        reverse: go from the last frame to the first.
        impl: "torch" or "triton".

    Returns:
        y, (B, T, 2^N), and the logarithms of the sums, (B, T), zeros with sources.
    """
    return chain_scan_reference(weights, sources, first, change, reverse)
