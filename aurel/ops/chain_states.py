"""The states of N binary action units along a video: numbering, energies, changes.

State s has bit i of s for action unit i, so that there are 2^N states. Energies and messages of
all states are float64 vectors of that length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.arguments import check_device, check_input, check_shape, check_tensor

MAX_UNITS = 16
MAX_STAY = 30.0
"""A change costs at most this much, exp(-30) = 1e-13, so that no product of 16 such costs, and of
the evidence against a state, leaves the range of float64."""
MAX_LOGIT = 200.0
"""Marginals are at most this far from 0, as logits."""
NO_TRITON = "chains of action units have none"


def check_chain(logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None) -> None:
    """Raise an error unless the arguments describe a chain over binary action units."""
    check_input("logits", logits, "B T N")
    batch, frames, units = logits.shape
    if not 1 <= units <= MAX_UNITS:
        raise ValueError(f"logits must have 1..{MAX_UNITS} action units, got {units}")
    if frames == 0:
        raise ValueError("logits must have at least one frame, got T = 0")
    check_input("couplings", couplings, "N N", logits, N=units)
    check_tensor("stay", stay)
    steps = {"B": 1 if stay.ndim == 3 and stay.shape[0] == 1 else batch, "T-1": frames - 1}
    check_input("stay", stay, "N" if stay.ndim < 3 else "B T-1 N", logits, **steps, N=units)
    if mask is not None:
        check_shape("mask", mask, "B T", B=batch, T=frames)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool (True where the frame is valid), got {mask.dtype}")
        check_device("mask", mask, logits)


def couplings_of_pairs(couplings: Tensor) -> Tensor:
    """Return the mean of both directions, (N (N - 1) / 2,) float64: rows of the upper triangle."""
    couplings, units = couplings.double(), len(couplings)
    first, second = torch.triu_indices(units, units, 1, device=couplings.device)
    return (couplings[first, second] + couplings[second, first]) / 2


def of_every_step(stay: Tensor, frames: int) -> Tensor:
    """Return costs of a change (N,) as (1, T - 1, N); others as they are."""
    return stay.expand(1, frames - 1, -1) if stay.ndim == 1 else stay


def state_bits(units: int, like: Tensor) -> Tensor:
    """Return y of every state, (2^N, N), in float64."""
    states = torch.arange(2**units, device=like.device)
    return ((states[:, None] >> torch.arange(units, device=like.device)) & 1).double()


def state_energies(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    r"""Return :math:`\sum_i u_i y_i + \sum_{i<j} J_{ij} y_i y_j`, (B, T, 2^N), 0 without evidence.

    Args:
        logits: (B, T, N).
        couplings: (N (N - 1) / 2,), rows of the upper triangle.
        mask: (B, T) bool, True where a frame has evidence, or None.
    """
    units = logits.shape[-1]
    bits = state_bits(units, logits)
    first, second = torch.triu_indices(units, units, 1, device=logits.device)
    coupled = (bits[:, first] * bits[:, second]) @ couplings.double()
    if mask is None:
        return logits.double() @ bits.T + coupled
    # NaN in a frame without evidence must not reach a sum.
    energies = logits.double().where(mask[..., None], 0) @ bits.T + coupled
    return energies.where(mask[..., None], 0)


def halves(values: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Return values (..., 2^N) of the states with y_unit = 0, and of those with 1, as views."""
    pairs = values.unflatten(-1, (-1, 2, 2**unit))
    return pairs[..., 0, :], pairs[..., 1, :]


def log_messages(energies: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithms of forward and backward messages, (B, T, 2^N) each.

    The forward message of a frame is the sum over all paths that end in a state of it, the backward
    message that over all paths behind the state.

    Args:
        energies: (B, T, 2^N).
        costs: (B, T - 1, N) or (1, T - 1, N).
    """
    frames = energies.shape[1]
    costs = costs.double().clamp(-MAX_STAY, MAX_STAY)
    forward = [energies[:, 0]]
    for t in range(1, frames):
        forward.append(_log_step(forward[-1], costs[:, t - 1]) + energies[:, t])
    backward = [torch.zeros_like(energies[:, 0])]
    for t in range(frames - 1, 0, -1):
        backward.append(_log_step(backward[-1] + energies[:, t], costs[:, t - 1]))
    return torch.stack(forward, 1), torch.stack(backward[::-1], 1)


def _log_step(message: Tensor, costs: Tensor) -> Tensor:
    """Return the logarithm of the product of exp(message), (B, 2^N), and all N 2 x 2 matrices."""
    for i in range(costs.shape[-1]):
        inactive, active = halves(message, i)
        cost = costs[:, i, None, None]
        pairs = (
            torch.logaddexp(inactive, active - cost),
            torch.logaddexp(active, inactive - cost),
        )
        message = torch.stack(pairs, -2).flatten(-3)
    return message


def marginal_logits(joint: Tensor) -> Tensor:
    """Return the logits of marginals, (..., N), from logarithms of probabilities (..., 2^N)."""
    odds = []
    for i in range(joint.shape[-1].bit_length() - 1):
        inactive, active = halves(joint, i)
        odds.append(active.flatten(-2).logsumexp(-1) - inactive.flatten(-2).logsumexp(-1))
    return torch.stack(odds, -1).clamp(-MAX_LOGIT, MAX_LOGIT)
