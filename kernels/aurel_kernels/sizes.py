"""Sizes that the kernels serve. Within one graph offsets are 32-bit; between graphs, 64-bit."""

from __future__ import annotations

import triton

MAX_K = 64
MAX_NODES = 16_384
MAX_CHANNELS = 2_048


def size_obstacle(nodes: int, channels: int, k: int = 1) -> str | None:
    """Return which size the kernels do not serve, or None if they serve all."""
    if k > MAX_K:
        return f"the kernels serve k up to {MAX_K}, got {k}"
    if nodes > MAX_NODES:
        return f"the kernels serve up to {MAX_NODES} nodes, got {nodes}"
    if channels > MAX_CHANNELS:
        return f"the kernels serve up to {MAX_CHANNELS} channels, got {channels}"
    return None


def power_of_two(size: int, least: int = 16) -> int:
    """Return the smallest power of two that is at least `size` and `least`."""
    return max(least, triton.next_power_of_2(size))
