"""The most likely state of a pairwise model of binary nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aurel.ops.backend import Backend, resolve_backend
from aurel.ops.pairwise_halves import field_energies, joint_energies
from aurel.ops.pairwise_marginals import check_arguments
from aurel.ops.registration import operator

_BLOCK = 2**16  # energies computed at a time


def pairwise_mode(
    logits: Tensor, couplings: Tensor, *, mask: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    """Return the most likely state of the model of `pairwise_marginals`.

    All 2^N states are compared, in float64. Of equally likely states the one with the lowest
    number is returned, in which node i is bit i.

    Args:
        logits: the fields u, (B, N), with N up to 24, finite.
        couplings: J, (N, N), finite; the diagonal is not used.
        mask: (B, N) bool, True where the node exists. An absent node is 0.
        backend: see `aurel.use_backend`.

    Returns:
        (B, N) bool, True where the node is 1. It has no gradient.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_arguments(logits, couplings, mask)
    impl = resolve_backend("pairwise_mode", backend, (logits, couplings))
    given = (each.detach() if each.requires_grad else each for each in (logits, couplings))
    mode: Tensor = _pairwise_mode(*given, mask, impl)
    return mode


def _best_state(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> Tensor:
    """Return the best state, (B, N): the best one of the lower half, given each of the upper."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    logits, couplings = logits.to(wide), couplings.to(wide)
    joint = joint_energies(couplings)
    low, high = field_energies(logits, mask, joint)
    (batch, nodes), split = logits.shape, logits.shape[1] // 2
    size = max(1, _BLOCK // max(1, batch * 2**split))
    found = [(low[:, None] + values).max(2) for values in joint.values.T.split(size)]
    best = torch.cat([each.values for each in found], 1) + high
    place = torch.cat([each.indices for each in found], 1)
    upper = best.argmax(1, keepdim=True)
    number = upper * 2**split + place.gather(1, upper)
    return (number >> torch.arange(nodes, device=logits.device)) & 1 == 1


def _define(call: Any) -> Tensor:
    return _best_state(call.logits, call.couplings, call.mask)


@operator(
    shapes=lambda call: call.logits.new_empty(call.logits.shape, dtype=torch.bool),
    definition=_define,
    flops=None,
    kernels=("numba",),
    gradient=None,
)
def _pairwise_mode(logits: Tensor, couplings: Tensor, mask: Tensor | None, impl: str) -> Tensor:
    return _best_state(logits, couplings, mask)
