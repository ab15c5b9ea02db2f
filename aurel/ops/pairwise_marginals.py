"""Exact inference in a pairwise model of N binary nodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from aurel.kernels.triton.sizes import binary_obstacle
from aurel.ops import pairwise_halves, pairwise_kernel, pairwise_walk
from aurel.ops.arguments import check_bool, check_input, check_mask
from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.pairwise_states import (
    energies_of,
    states_between,
    without_absent,
    without_impossible,
)
from aurel.ops.precision import in_dtype, wide_dtype
from aurel.ops.registration import Gradient, gradients_of_definition, operator

MAX_NODES = 24  # 2^24 states


class PairwiseMarginals(NamedTuple):
    r"""Result of `pairwise_marginals`.

    Attributes:
        log_partition: :math:`\log Z`, (B,).
        logits: :math:`\log\big(p(y_i = 1) / p(y_i = 0)\big)`, (B, N), exact where the probability
            is rounded to 0 or 1.
        marginals: :math:`p(y_i = 1)`, (B, N).
        pair_marginals: :math:`p(y_i = 1, y_j = 1)`, (B, N, N), with the marginals on the diagonal;
            None unless asked for.
    """

    log_partition: Tensor
    logits: Tensor
    marginals: Tensor
    pair_marginals: Tensor | None


def pairwise_energies(logits: Tensor, couplings: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the exponent of `pairwise_marginals` for all states, (B, 2^N), in plain torch.

    Bit i of the number of a state is node i. States in which an absent node is 1 get -inf.
    """
    states = states_between(0, 2 ** logits.shape[1], logits.shape[1], logits)
    energies = energies_of(states, *without_absent(logits, couplings, mask))
    return without_impossible(energies, states, mask)


def pairwise_marginals_reference(
    logits: Tensor, couplings: Tensor, *, mask: Tensor | None = None, pairs: bool = False
) -> PairwiseMarginals:
    """Define `pairwise_marginals`: a table of all states; holds (B, N, 2^N)."""
    dtype = wide_dtype(logits, couplings)
    logits, couplings = in_dtype(logits, dtype), in_dtype(couplings, dtype)
    states = states_between(0, 2 ** logits.shape[1], logits.shape[1], logits)
    energies = energies_of(states, *without_absent(logits, couplings, mask))
    possible = without_impossible(energies, states, mask)
    log_partition = possible.logsumexp(1)
    # An absent node is 0 and 1 with the same energies: its logit is 0, and has a gradient of 0.
    each, on = energies.unsqueeze(1), states.T == 1
    active, inactive = (each.masked_fill(off, -torch.inf).logsumexp(2) for off in (~on, on))
    joint = None
    if pairs:
        probabilities = (possible - log_partition.unsqueeze(1)).exp()
        joint = torch.einsum("bs,si,sj->bij", probabilities, states, states)
    return _result(log_partition, active - inactive, joint, mask)


def _result(
    log_partition: Tensor, logits: Tensor, pairs: Tensor | None, mask: Tensor | None
) -> PairwiseMarginals:
    marginals = logits.sigmoid()
    if mask is not None:
        marginals = marginals.masked_fill(~mask, 0)
        # Of no nodes, without rounding.
        log_partition = log_partition.masked_fill(~mask.any(1), 0)
    return PairwiseMarginals(log_partition, logits, marginals, pairs)


def pairwise_marginals(
    logits: Tensor,
    couplings: Tensor,
    *,
    mask: Tensor | None = None,
    pairs: bool = False,
    backend: Backend = "auto",
) -> PairwiseMarginals:
    r"""Sum a pairwise (Ising) model of binary nodes over all its states.

    .. math::
        p(y) = \frac1Z \exp\Big(\sum_i u_i y_i
            + \sum_{i<j} \tfrac12 (J_{ij} + J_{ji})\, y_i y_j\Big), \qquad y \in \{0, 1\}^N

    The result is exact. CPU kernels multiply by a 2^(N/2) x 2^(N/2) matrix in float64, or sum the
    weights of all states for up to 8 nodes; plain torch takes products of such matrices. A
    (B, 2^N) tensor is never stored. Where exponentials would overflow or underflow, the sum is in
    the log domain instead; so is the backward pass. N = 12 has 4,096 states, N = 20 a million.

    Args:
        logits: the fields u, (B, N), with N up to 24, finite.
        couplings: J, (N, N); the diagonal is not used.
        mask: (B, N) bool, True where the node exists. An absent node is left out of the model.
        pairs: return the marginals of pairs as well.
        backend: see `aurel.use_backend`. The CPU kernels serve up to 16 nodes without `pairs`;
            other calls of "numba" are plain torch.

    Returns:
        A `PairwiseMarginals`, in the dtype of the arguments, float32 at least; zeros for absent
        nodes. NaN and infinities stay in their sample.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_arguments(logits, couplings, mask)
    check_bool("pairs", pairs)
    nodes = logits.shape[1]
    impl = resolve_backend(
        "pairwise_marginals",
        backend,
        (logits, couplings),
        lambda: binary_obstacle(nodes, pairs),
    )
    if impl == "numba" and not _is_by_kernel(impl, logits, pairs):
        impl = "torch"
    out = wide_dtype(logits, couplings)
    # Apple's devices have no float64; the CPU kernels are in float64 inside.
    narrow = impl != "torch" or logits.device.type == "mps"
    inside = out if narrow else torch.float64
    given = in_dtype(logits, inside), in_dtype(couplings, inside)
    log_partition, marginal_logits, joint = _pairwise_marginals(*given, mask, pairs, impl)
    if impl == "numba":
        return PairwiseMarginals(log_partition, marginal_logits, joint, None)
    log_partition, marginal_logits = in_dtype(log_partition, out), in_dtype(marginal_logits, out)
    return _result(log_partition, marginal_logits, in_dtype(joint, out) if pairs else None, mask)


def check_arguments(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError or TypeError unless these are arguments of `pairwise_marginals`."""
    check_input("logits", logits, "B N")
    nodes = logits.shape[1]
    if nodes > MAX_NODES:
        raise ValueError(f"logits must have at most {MAX_NODES} nodes, got {nodes}")
    check_input("couplings", couplings, "N N", logits, N=nodes)
    check_mask(mask, logits)


def _is_far(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    """Return for which samples exponentials might leave the range of the dtype, (B,)."""
    span = pairwise_halves.exponent_range(logits, couplings, mask)
    return ~(span <= pairwise_halves.LIMITS[logits.dtype])  # or NaN


def _shapes(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty outputs: log Z, logits, and marginals: of pairs, or of nodes by the kernels."""
    batch, nodes = call.logits.shape
    by_kernel = _is_by_kernel(call.impl, call.logits, call.pairs)
    third = (batch, nodes, nodes) if call.pairs else (batch, nodes) if by_kernel else (0,)
    return (
        call.logits.new_empty(batch),
        call.logits.new_empty(batch, nodes),
        call.logits.new_empty(third),
    )


def _define(call: Any) -> tuple[Tensor, Tensor, Tensor]:
    found = pairwise_marginals_reference(
        call.logits, call.couplings, mask=call.mask, pairs=call.pairs
    )
    third = found.pair_marginals
    if third is None:
        by_kernel = _is_by_kernel(call.impl, call.logits, call.pairs)
        third = found.marginals if by_kernel else call.logits.new_empty(0)
    return found.log_partition, found.logits, third


def _count_flops(call: Any) -> int:
    """Count the products with the couplings of joint states; `call` holds shapes."""
    batch, nodes = call.logits
    products = 2 + (nodes - nodes // 2 if call.pairs else 0)
    return int(2 * 2**nodes * batch * products)


def _save(ctx: Any, call: Any, output: tuple[Tensor, ...]) -> None:
    ctx.by_kernel = _is_by_kernel(call.impl, call.logits, call.pairs)
    kept = () if ctx.by_kernel else output  # the kernels compute them again
    ctx.save_for_backward(call.logits, call.couplings, call.mask, *kept)


def _is_by_kernel(impl: str, logits: Tensor, pairs: bool) -> bool:
    return impl == "numba" and pairwise_kernel.is_served(logits.shape[1], pairs)


def _backward_shapes(call: Any) -> tuple[Tensor, Tensor]:
    return call.logits.new_empty(call.logits.shape), call.couplings.new_empty(call.couplings.shape)


@operator(shapes=_backward_shapes, definition=None, flops=None, kernels=("triton",), gradient=None)
def _pairwise_marginals_backward(
    grad_partition: Tensor | None,
    grad_logits: Tensor | None,
    grad_pairs: Tensor | None,
    log_partition: Tensor | None,
    marginal_logits: Tensor | None,
    pair_marginals: Tensor | None,
    logits: Tensor,
    couplings: Tensor,
    mask: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    pairs = pair_marginals is not None and pair_marginals.shape != (0,)
    if _is_by_kernel(impl, logits, pairs):
        unused = grad_pairs is None or grad_pairs.shape == (0,)
        grads = (grad_partition, grad_logits, None if unused else grad_pairs)
        return pairwise_kernel.backward(*grads, logits, couplings, mask)
    # The kernels alone do without these.
    assert grad_partition is not None and grad_logits is not None and grad_pairs is not None
    assert log_partition is not None and marginal_logits is not None and pair_marginals is not None
    outputs = (log_partition, marginal_logits, pair_marginals)
    given = (grad_partition, grad_logits, grad_pairs, *outputs, logits)
    far = _is_far(logits, couplings, mask)
    if not far.any():
        return pairwise_halves.backward(*given, couplings, mask)
    total, moments = torch.empty_like(logits), torch.zeros_like(couplings)
    for rows, backward in ((~far, pairwise_halves.backward), (far, pairwise_walk.backward)):
        if not rows.any():  # couplings that are not finite would make zeros NaN
            continue
        own: list[Any] = [each if each.shape == (0,) else each[rows] for each in given]
        own += [couplings, None if mask is None else mask[rows]]
        total[rows], part = backward(*own)
        moments += part
    return total, moments


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    logits, couplings, mask, *outputs = ctx.saved_tensors
    given: tuple[Tensor | None, ...] = (*grads, None, None, None)
    if not ctx.by_kernel:
        used = (
            torch.zeros_like(out) if grad is None else grad
            for grad, out in zip(grads[:2], outputs, strict=False)
        )
        grad_pairs = logits.new_empty(0) if grads[2] is None else grads[2]
        given = (*used, grad_pairs, *outputs)
    found = _pairwise_marginals_backward(*given, logits, couplings, mask, ctx.impl)
    return *found, None, None, None


def _twice(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    logits, couplings, mask, *_ = ctx.saved_tensors

    def definition(logits: Tensor, couplings: Tensor) -> tuple[Tensor | None, ...]:
        pairs = grads[2] is not None and not ctx.by_kernel
        dtype, wide = logits.dtype, torch.float64 if ctx.by_kernel else logits.dtype
        given = logits.to(wide), couplings.to(wide)
        found = pairwise_marginals_reference(*given, mask=mask, pairs=pairs)
        third = found.marginals if ctx.by_kernel else found.pair_marginals
        outputs = found.log_partition, found.logits, third
        return tuple(None if each is None else each.to(dtype) for each in outputs)

    found = gradients_of_definition(definition, (logits, couplings), grads)
    return *found, None, None, None


@operator(
    shapes=_shapes,
    definition=_define,
    flops=_count_flops,
    kernels=("triton",),
    gradient=Gradient(_save, _backward, _twice),
)
def _pairwise_marginals(
    logits: Tensor, couplings: Tensor, mask: Tensor | None, pairs: bool, impl: str
) -> tuple[Tensor, Tensor, Tensor]:
    if _is_by_kernel(impl, logits, pairs):
        return pairwise_kernel.forward(logits, couplings, mask)
    far = _is_far(logits, couplings, mask)
    if not far.any():
        return pairwise_halves.forward(logits, couplings, mask, pairs)
    batch, nodes = logits.shape
    joint = logits.new_empty((batch, nodes, nodes) if pairs else (0,))
    outs = (logits.new_empty(batch), torch.empty_like(logits), joint)
    for rows, forward in ((~far, pairwise_halves.forward), (far, pairwise_walk.forward)):
        parts = forward(logits[rows], couplings, None if mask is None else mask[rows], pairs)
        for out, part in zip(outs, parts, strict=True):
            if out.shape != (0,):
                out[rows] = part
    return outs
