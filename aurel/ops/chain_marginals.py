"""Marginals of binary action units along a video, exact: scaled sums over all states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.ops.arguments import check_bool, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.chain_states import (
    MAX_LOGIT,
    MAX_STAY,
    NO_TRITON,
    check_chain,
    couplings_of_pairs,
    halves,
    of_every_step,
    state_energies,
)
from aurel.ops.registration import Gradient, gradients_of_definition, operator


def chain_marginals_reference(
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    *,
    mask: Tensor | None = None,
    past: bool = False,
) -> tuple[Tensor, Tensor]:
    """Define `chain_marginals`, with `couplings_of_pairs`, by logarithms of sums over states."""
    frames, units = logits.shape[1:]
    energies = state_energies(logits, couplings, mask)
    costs = of_every_step(stay.double().clamp(-MAX_STAY, MAX_STAY), frames)
    forward = [energies[:, 0]]
    for t in range(1, frames):
        forward.append(_step(forward[-1], costs[:, t - 1]) + energies[:, t])
    backward = [torch.zeros_like(energies[:, 0])]
    for t in range(frames - 1, 0, -1):
        backward.append(_step(backward[-1] + energies[:, t], costs[:, t - 1]))
    joint = torch.stack(forward, 1)
    if not past:
        joint = joint + torch.stack(backward[::-1], 1)
    odds = []
    for i in range(units):
        inactive, active = halves(joint, i)
        odds.append(active.flatten(-2).logsumexp(-1) - inactive.flatten(-2).logsumexp(-1))
    marginals = torch.stack(odds, -1).clamp(-MAX_LOGIT, MAX_LOGIT)
    return forward[-1].logsumexp(-1).to(logits.dtype), marginals.to(logits.dtype)


def _step(message: Tensor, costs: Tensor) -> Tensor:
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


def chain_marginals(
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    *,
    mask: Tensor | None = None,
    past: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Return the log-partition of a chain over N binary action units, and their marginals.

    .. math::
        p(y_1, \ldots, y_T) = \frac1Z \prod_t \exp\Big(\sum_i u_{ti} y_{ti}
            + \sum_{i<j} \tfrac12 (J_{ij} + J_{ji}) y_{ti} y_{tj}\Big) \prod_{t>1} \prod_i
            \exp(-s_{ti} [y_{ti} \neq y_{t-1,i}]), \qquad y_t \in \{0, 1\}^N

    Exact, by the forward-backward algorithm over all :math:`2^N` states. A step multiplies the
    vector of all states by N matrices of 2 x 2, one for each action unit: :math:`N 2^N` operations.
    Computed in float64 inside.

    The gradient of :math:`\log Z` with respect to `logits` is the marginals
    :math:`p(y_{ti} = 1)`, with respect to the coupling of a pair the expected number of frames in
    which both are active, and with respect to `stay` minus the expected number of changes.

    Args:
        logits: :math:`u`, (B, T, N), floating point, T >= 1 and N in 1..16.
        couplings: :math:`J`, (N, N); the diagonal is not used.
        stay: cost :math:`s` of a change, (N,), or one for each step from a frame to the next,
            (B, T - 1, N) or (1, T - 1, N). 0 makes consecutive frames independent. Costs beyond
            -30 and 30 count as these.
        mask: (B, T) bool, True where the frame has evidence. The potential of other frames, u and
            J, is left out; their marginals are predictions from the others.
        past: give marginals from the frame and those before it alone (filtering) instead of from
            the whole clip (smoothing).
        backend: see `aurel.use_backend`.

    Returns:
        :math:`\log Z`, (B,), and :math:`\log p(y_{ti} = 1) / p(y_{ti} = 0)`, (B, T, N), at most
        200 from 0, in the common dtype of the arguments. Differences of log-partitions of long
        clips need float64.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_chain(logits, couplings, stay, mask)
    check_bool("past", past)
    logits, couplings, stay = promote(logits, couplings, stay)
    couplings = couplings_of_pairs(couplings)
    stay = of_every_step(stay, logits.shape[1])
    impl = resolve_backend("chain_marginals", backend, (logits,), lambda: NO_TRITON)
    log_partition, marginals = _chain_marginals(logits, couplings, stay, mask, past, impl)
    return log_partition, marginals


def _define(call: Any) -> tuple[Tensor, Tensor]:
    return chain_marginals_reference(
        call.logits, call.couplings, call.stay, mask=call.mask, past=call.past
    )


def _backward_shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    logits, couplings, stay = (
        each.new_empty(each.shape) for each in (call.logits, call.couplings, call.stay)
    )
    return logits, couplings, stay


@operator(shapes=_backward_shapes, definition=None, flops=None, kernels=("numba",), gradient=None)
def _chain_marginals_backward(
    grad_partition: Tensor | None,
    grad_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    mask: Tensor | None,
    past: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [each.detach().requires_grad_() for each in (logits, couplings, stay)]
    with torch.enable_grad():
        grads = _through_definition(inputs, (grad_partition, grad_marginals), mask, past)
    found = [
        torch.zeros_like(each) if grad is None else grad.detach().contiguous()
        for each, grad in zip(inputs, grads, strict=True)
    ]
    return found[0], found[1], found[2]


def _through_definition(
    inputs: Any, grads: Any, mask: Tensor | None, past: bool
) -> tuple[Tensor | None, ...]:
    return gradients_of_definition(
        lambda *given: chain_marginals_reference(*given, mask=mask, past=past), inputs, grads
    )


def _save(ctx: Any, call: Any, _: tuple[Tensor, Tensor]) -> None:
    ctx.past = call.past
    ctx.save_for_backward(call.logits, call.couplings, call.stay, call.mask)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    # The kernels have no gradient of filtering.
    impl = "torch" if ctx.past else ctx.impl
    found = _chain_marginals_backward(*grads, *ctx.saved_tensors, ctx.past, impl)
    return *found, None, None, None


def _twice(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, mask = ctx.saved_tensors
    return *_through_definition(inputs, grads, mask, ctx.past), None, None, None


@operator(
    shapes=lambda call: (
        call.logits.new_empty(call.logits.shape[:1]),
        torch.empty_like(call.logits, memory_format=torch.contiguous_format),
    ),
    definition=_define,
    flops=None,
    kernels=("numba",),
    gradient=Gradient(_save, _backward, _twice),
)
def _chain_marginals(
    logits: Tensor,
    couplings: Tensor,
    stay: Tensor,
    mask: Tensor | None,
    past: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    log_partition, marginals = chain_marginals_reference(
        logits, couplings, stay, mask=mask, past=past
    )
    return log_partition.contiguous(), marginals.contiguous()
