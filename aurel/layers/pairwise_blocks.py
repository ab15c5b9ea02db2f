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
    """Return blocks of at most `size` nodes that keep strong couplings within a block.

    The strongest pair is joined first, then the next whose blocks fit together; small blocks are
    then put together where they fit. Ties go to the lowest nodes.

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
    first, second = torch.triu_indices(len(strength), len(strength), 1)
    order = strength[first, second].argsort(descending=True, stable=True)
    blocks = [{node} for node in range(len(strength))]
    member = list(range(len(strength)))
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        _join(blocks, member, member[i], member[j], size)
    for a in sorted(range(len(blocks)), key=lambda block: -len(blocks[block])):
        for b in range(len(blocks)):
            _join(blocks, member, a, b, size)
    return tuple(sorted(tuple(sorted(block)) for block in blocks if block))


def _join(blocks: list[set[int]], member: list[int], a: int, b: int, size: int) -> None:
    if a == b or not blocks[a] or not blocks[b] or len(blocks[a]) + len(blocks[b]) > size:
        return
    for node in blocks[b]:
        member[node] = a
    blocks[a] |= blocks[b]
    blocks[b] = set()


def check_blocks(blocks: Sequence[Sequence[int]], num_nodes: int, most: int) -> Blocks:
    """Return `blocks` as tuples; ValueError unless they hold each node once, in `most` at most."""
    found = tuple(tuple(int(node) for node in block) for block in blocks)
    if sorted(node for block in found for node in block) != list(range(num_nodes)):
        raise ValueError(f"blocks must hold each of 0..{num_nodes - 1} once, got {found}")
    largest = max((len(block) for block in found), default=0)
    if largest > most or not all(found):
        raise ValueError(f"blocks must have 1..{most} nodes, got {[len(b) for b in found]}")
    return found
