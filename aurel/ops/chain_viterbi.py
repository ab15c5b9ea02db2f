"""The most likely states of binary action units along a video, exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.ops.arguments import promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.chain_states import (
    MAX_STAY,
    NO_TRITON,
    check_chain,
    couplings_of_pairs,
    halves,
    of_every_step,
    state_bits,
    state_energies,
)
from aurel.ops.registration import operator


def chain_viterbi_reference(
    logits: Tensor, couplings: Tensor, stay: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """Define `chain_viterbi`, with `couplings_of_pairs`: best scores, then back from the best."""
    frames, units = logits.shape[1:]
    energies = state_energies(logits, couplings, mask)
    costs = of_every_step(stay.double().clamp(-MAX_STAY, MAX_STAY), frames)
    bits = state_bits(units, logits)
    best = [energies[:, 0]]
    for t in range(1, frames):
        best.append(_best_step(best[-1], costs[:, t - 1]) + energies[:, t])
    state = best[-1].argmax(1)
    path = [state]
    for t in range(frames - 1, 0, -1):
        changed = bits != bits[state][:, None]
        score = best[t - 1] - (changed * costs[:, t - 1, None]).sum(2)
        state = score.argmax(1)
        path.append(state)
    return bits[torch.stack(path[::-1], 1)].long()


def _best_step(score: Tensor, costs: Tensor) -> Tensor:
    """Return the best score (B, 2^N) with which a step leads to each state."""
    for i in range(costs.shape[-1]):
        inactive, active = halves(score, i)
        cost = costs[:, i, None, None]
        pairs = torch.maximum(inactive, active - cost), torch.maximum(active, inactive - cost)
        score = torch.stack(pairs, -2).flatten(-3)
    return score


def chain_viterbi(
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""Return the most likely path of a chain over N binary action units.

    .. math::
        \operatorname*{arg\,max}_{y_1, \ldots, y_T} \sum_t \Big(\sum_i u_{ti} y_{ti}
            + \sum_{i<j} \tfrac12 (J_{ij} + J_{ji}) y_{ti} y_{tj}\Big)
            - \sum_{t>1} \sum_i s_{ti} [y_{ti} \neq y_{t-1,i}]

    by the Viterbi algorithm over all :math:`2^N` states, in float64. The model and its arguments
    are those of `chain_marginals`. Of equal paths any may be given.

    Args:
        logits: :math:`u`, (B, T, N), floating point, T >= 1 and N in 1..16.
        couplings: :math:`J`, (N, N); the diagonal is not used.
        stay: cost :math:`s` of a change, (N,), (B, T - 1, N) or (1, T - 1, N).
        mask: (B, T) bool, True where the frame has evidence.
        backend: see `aurel.use_backend`.

    Returns:
        (B, T, N) int64, 1 where the action unit is active. It has no gradient.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_chain(logits, couplings, stay, mask)
    logits, couplings, stay = promote(logits, couplings, stay)
    couplings = couplings_of_pairs(couplings)
    stay = of_every_step(stay, logits.shape[1])
    impl = resolve_backend("chain_viterbi", backend, (logits,), lambda: NO_TRITON)
    given = (logits.detach(), couplings.detach(), stay.detach(), mask)
    path: Tensor = _chain_viterbi(*given, impl)
    return path


def _define(call: Any) -> Tensor:
    return chain_viterbi_reference(call.logits, call.couplings, call.stay, mask=call.mask)


@operator(
    shapes=lambda call: call.logits.new_empty(call.logits.shape, dtype=torch.int64),
    definition=_define,
    flops=None,
    kernels=("numba",),
    gradient=None,
)
def _chain_viterbi(
    logits: Tensor, couplings: Tensor, stay: Tensor, mask: Tensor | None, impl: str
) -> Tensor:
    return chain_viterbi_reference(logits, couplings, stay, mask=mask)
