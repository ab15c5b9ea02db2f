"""The most likely state of a pairwise model of binary nodes."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.pairwise_marginals import check_arguments
from aurel.ops.pairwise_states import (
    energies_of,
    states_between,
    without_absent,
    without_impossible,
)
from aurel.ops.precision import without_autocast

_BLOCK = 2**20  # energies computed at a time


def pairwise_mode(logits: Tensor, couplings: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the most likely state of the model of `pairwise_marginals`.

    All 2^N states are compared, block after block. Of equally likely states the one with the lowest
    number is returned, in which node i is bit i.

    Args:
        logits: the fields u, (B, N), with N up to 24.
        couplings: J, (N, N); the diagonal is not used.
        mask: (B, N) bool, True where the node exists. An absent node is 0.

    Returns:
        (B, N) bool, True where the node is 1.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
        TypeError: an argument has the wrong type.
    """
    check_arguments(logits, couplings, mask)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    logits, couplings = logits.detach().to(wide), couplings.detach().to(wide)
    batch, nodes = logits.shape
    best = logits.new_full((batch,), -torch.inf)
    number = torch.zeros(batch, dtype=torch.int64, device=logits.device)
    size = max(1, _BLOCK // max(1, batch))
    free = without_absent(logits, couplings, mask)
    for start in range(0, 2**nodes, size):
        states = states_between(start, min(start + size, 2**nodes), nodes, logits)
        with without_autocast(logits):
            energies = energies_of(states, *free)
        most, place = without_impossible(energies, states, mask).max(1)
        number = torch.where(most > best, place + start, number)
        best = torch.maximum(best, most)
    return (number[:, None] >> torch.arange(nodes, device=logits.device)) & 1 == 1
