"""Blocks of action units for pairwise models that are too large to sum over all states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aurel.ops.pairwise_states import half_couplings

Blocks = tuple[tuple[int, ...], ...]


def even_blocks(num_nodes: int, size: int) -> Blocks:
    """Return the nodes in their order in blocks of at most `size`, as even as possible."""
    count = -(-num_nodes // size)
    ends = [num_nodes * i // count for i in range(count + 1)]
    return tuple(tuple(range(a, b)) for a, b in zip(ends, ends[1:], strict=False))


def coupled_blocks(couplings: Tensor, size: int = 14) -> Blocks:
    """Return even blocks of at most `size` nodes that keep strong couplings within a block.

    From blocks of consecutive nodes, the two nodes of different blocks are exchanged that most
    increase the sum of the absolute couplings within blocks, until no exchange does.

    Args:
        couplings: (N, N), as those of `PairwiseInference`.
        size: largest number of nodes of a block.

    Returns:
        Blocks for `PairwiseInference`, each in order, by their first nodes.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size must be 1 or more, got {size}")
    half = half_couplings(couplings.detach().double().cpu())
    strength = (half + half.T).abs()
    blocks = even_blocks(len(strength), size)
    member = torch.zeros(len(strength), len(blocks), dtype=torch.float64)
    for number, nodes in enumerate(blocks):
        member[list(nodes), number] = 1
    while True:
        to_block = strength @ member  # (N, blocks)
        there = to_block @ member.T  # [i, j]: of i to the block of j
        here = there.diagonal()
        gain = there + there.T - here[:, None] - here - 2 * strength
        gain = gain.masked_fill(member @ member.T > 0, 0)
        best = int(gain.argmax())
        i, j = divmod(best, len(strength))
        if gain[i, j] < 1e-9:
            break
        member[[i, j]] = member[[j, i]]
    found = member.argmax(1)
    return tuple(sorted(tuple((found == b).nonzero()[:, 0].tolist()) for b in range(len(blocks))))


def check_blocks(blocks: Sequence[Sequence[int]], num_nodes: int, most: int) -> Blocks:
    """Return `blocks` as tuples; ValueError unless they hold each node once, in `most` at most."""
    found = tuple(tuple(int(node) for node in block) for block in blocks)
    if sorted(node for block in found for node in block) != list(range(num_nodes)):
        raise ValueError(f"blocks must hold each of 0..{num_nodes - 1} once, got {found}")
    largest = max((len(block) for block in found), default=0)
    if largest > most or not all(found):
        raise ValueError(f"blocks must have 1..{most} nodes, got {[len(b) for b in found]}")
    return found
