"""Sizes that the kernels serve; this module does not import Triton.

Offsets within one graph are 32-bit, those between graphs 64-bit.
"""

from __future__ import annotations

MAX_K = 64
MAX_NODES = 16_384
MAX_CHANNELS = 2_048
WHOLE_GRAPH = 64  # nodes of a graph that one program holds
MAX_GATED_NODES = 256
MAX_TOKENS = 1_024
MAX_BINARY_NODES = 20  # of which all 2^N states are summed
MAX_CHAIN_UNITS = 13  # of which one program holds all 2^N states
WHOLE_PAIR = 64  # tokens a node for which one program holds the attention of a pair


def graph_obstacle(nodes: int, channels: int, k: int) -> str | None:
    """Return which size of a neighbor op is not served, or None if all are."""
    if k > MAX_K:
        return f"the kernels serve k up to {MAX_K}, got {k}"
    if nodes > MAX_NODES:
        return f"the kernels serve up to {MAX_NODES} nodes, got {nodes}"
    if channels > MAX_CHANNELS:
        return f"the kernels serve up to {MAX_CHANNELS} channels, got {channels}"
    return None


def ties_obstacle(nodes: int, ties: str) -> str | None:
    """Return why `topk_aggregate` cannot serve these nodes with such `ties`, or None if it can."""
    if ties == "all" and nodes > WHOLE_GRAPH:
        return f"the kernel for ties='all' serves up to {WHOLE_GRAPH} nodes, got {nodes}"
    return None


def attention_obstacle(nodes: int, channels: int) -> str | None:
    """Return which size of `graph_attention` is not served, or None if all are."""
    return graph_obstacle(nodes, channels, k=1)


def gate_obstacle(nodes: int) -> str | None:
    """Return which size of `gated_edge_aggregate` is not served, or None if all are."""
    if nodes > MAX_GATED_NODES:
        return f"the kernels serve up to {MAX_GATED_NODES} nodes, got {nodes}"
    return None


def pair_obstacle(tokens: int) -> str | None:
    """Return which size of `pair_pool` is not served, or None if all are."""
    if tokens > MAX_TOKENS:
        return f"the kernels serve up to {MAX_TOKENS} tokens, got {tokens}"
    return None


def binary_obstacle(nodes: int, pairs: bool) -> str | None:
    """Return why `pairwise_marginals` is not served, or None if it is."""
    if pairs:
        return "the kernels give no marginals of pairs"
    if not 1 <= nodes <= MAX_BINARY_NODES:
        return f"the kernels serve 1 to {MAX_BINARY_NODES} binary nodes, got {nodes}"
    return None


def chain_obstacle(units: int) -> str | None:
    """Return why `chain_marginals` is not served, or None if it is."""
    if units > MAX_CHAIN_UNITS:
        return f"the kernel serves up to {MAX_CHAIN_UNITS} binary units, got {units}"
    return None


def power_of_two(size: int, least: int = 16) -> int:
    """Return the smallest power of two that is at least `size` and `least`."""
    return max(least, 1 << (size - 1).bit_length())
