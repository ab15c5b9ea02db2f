"""Sizes that the kernels serve; asking needs no Triton.

Offsets within one graph are 32-bit, those between graphs 64-bit.
"""

from __future__ import annotations

MAX_K = 64
MAX_NODES = 16_384
MAX_CHANNELS = 2_048
WHOLE_GRAPH = 64  # nodes that a program can see all at once


def graph_obstacle(nodes: int, channels: int, k: int) -> str | None:
    """Return which size of a neighbour op is not served, or None if all are."""
    if k > MAX_K:
        return f"the kernels serve k up to {MAX_K}, got {k}"
    if nodes > MAX_NODES:
        return f"the kernels serve up to {MAX_NODES} nodes, got {nodes}"
    if channels > MAX_CHANNELS:
        return f"the kernels serve up to {MAX_CHANNELS} channels, got {channels}"
    return None


def ties_obstacle(nodes: int, ties: str) -> str | None:
    """Return why `topk_aggregate` cannot break, or keep, ties so; None if it can."""
    if ties == "all" and nodes > WHOLE_GRAPH:
        return f"the kernel for ties='all' serves up to {WHOLE_GRAPH} nodes, got {nodes}"
    return None


def power_of_two(size: int, least: int = 16) -> int:
    """Return the smallest power of two that is at least `size` and `least`."""
    return max(least, 1 << (size - 1).bit_length())
