"""Marginals of binary action units along a video, exact: scaled sums over all states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import chain_obstacle
from aurel.ops.arguments import check_bool, promote
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.chain_gradients import chain_gradients
from aurel.ops.chain_scan import odds_of_units, scaled_messages
from aurel.ops.chain_states import (
    check_chain,
    couplings_of_pairs,
    log_messages,
    marginal_logits,
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
    energies = state_energies(logits, couplings, mask)
    forward, backward = log_messages(energies, of_every_step(stay, logits.shape[1]))
    marginals = marginal_logits(forward if past else forward + backward)
    return forward[:, -1].logsumexp(1).to(logits.dtype), marginals.to(logits.dtype)


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
    impl = resolve_backend(
        "chain_marginals", backend, (logits,), lambda: chain_obstacle(logits.shape[2]), float64=True
    )
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
    grads = chain_gradients(
        grad_partition, grad_marginals, logits, couplings, stay, mask=mask, past=past, impl=impl
    )
    return grads[0].to(logits.dtype), grads[1].to(couplings.dtype), grads[2].to(stay.dtype)


def _save(ctx: Any, call: Any, _: tuple[Tensor, Tensor]) -> None:
    ctx.past = call.past
    ctx.save_for_backward(call.logits, call.couplings, call.stay, call.mask)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    # The CPU kernels have no gradient of filtering.
    impl = "torch" if ctx.past and ctx.impl == "numba" else ctx.impl
    found = _chain_marginals_backward(*grads, *ctx.saved_tensors, ctx.past, impl)
    return *found, None, None, None


def _twice(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, mask = ctx.saved_tensors

    def marginals(*given: Tensor) -> tuple[Tensor, Tensor]:
        return chain_marginals_reference(*given, mask=mask, past=ctx.past)

    return *gradients_of_definition(marginals, inputs, grads), None, None, None


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
    found = scaled_messages(state_energies(logits, couplings, mask), stay, past, impl)
    marginals = odds_of_units(found.forward * found.backward)
    return found.log_partition.to(logits.dtype), marginals.to(logits.dtype)
