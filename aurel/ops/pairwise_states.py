"""States of N binary nodes and their energies: bit i of the number of a state is node i."""

from __future__ import annotations

import torch
from torch import Tensor

from aurel.ops.masks import pair_mask


def states_between(start: int, stop: int, nodes: int, like: Tensor) -> Tensor:
    """Return the states of these numbers, (stop - start, N) of 0 and 1, as `like` is stored."""
    numbers = torch.arange(start, stop, device=like.device)
    places = torch.arange(nodes, device=like.device)
    # The operator >> has no counterpart in ONNX, this function has.
    return (torch.bitwise_right_shift(numbers[:, None], places) & 1).to(like.dtype)


def half_couplings(couplings: Tensor) -> Tensor:
    """Return A of s^T A s = sum over i < j of J_ij s_i s_j: half of J, 0 on the diagonal."""
    nodes = couplings.shape[-1]
    diagonal = torch.eye(nodes, dtype=torch.bool, device=couplings.device)
    return couplings.masked_fill(diagonal, 0) / 2


def without_absent(logits: Tensor, couplings: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the model in which absent nodes have no field and no coupling.

    Such a node is independent of the others, which therefore have the marginals that they have
    without it. With a mask the couplings are (B, N, N).
    """
    if mask is None:
        return logits, couplings
    pairs = pair_mask(mask)
    return logits.masked_fill(~mask, 0), couplings.expand_as(pairs).masked_fill(~pairs, 0)


def energies_of(states: Tensor, logits: Tensor, couplings: Tensor) -> Tensor:
    """Return the energies, (B, S), of states (S, N); `couplings` is (N, N) or (B, N, N)."""
    half = half_couplings(couplings)
    if couplings.ndim == 2:
        return logits @ states.T + ((states @ half) * states).sum(1)
    return logits @ states.T + ((states @ half) * states).sum(2)


def impossible(states: Tensor, mask: Tensor) -> Tensor:
    """Return in which states (S, N) an absent node is 1, (B, S)."""
    return (~mask).to(states.dtype) @ states.T > 0


def without_impossible(energies: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the energies (B, S) with -inf for states (S, N) in which an absent node is 1."""
    if mask is None:
        return energies
    return energies.masked_fill(impossible(states, mask), -torch.inf)
