"""The description of a search for nearest sources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aurel.kernels.cpu.arrays import Array


@dataclass(slots=True)
class Problem:
    """Arrays that describe the search; flat, rows after each other.

    Attributes:
        x, y: nodes and their candidates; the same array if a graph's nodes are the candidates.
        channels: of both.
        rows: (G, 2), first row and number of rows of each graph in x.
        sources: (G, 2), the same in y.
        valid, source_valid: bool for each row, or empty for all.
        bias: scores that are added, row after row, or empty.
        bias_stride: places from one graph's bias to the next; 0 if they share one.
        metric: name.
        k, dilation: every `dilation`-th of the ``k * dilation`` nearest.
        loop: a node may be its own neighbor.
        local: neighbors are numbered within their graph, not in y.
    """

    x: Array
    y: Array
    channels: int
    rows: Array
    sources: Array
    valid: Array
    source_valid: Array
    bias: Array
    bias_stride: int
    metric: str
    k: int
    dilation: int
    loop: bool
    local: bool

    def work(self) -> int:
        """Return the number of elementary operations; eight channels count as one."""
        if len(self.rows) == 0:
            return 0
        if self.local:  # a dense batch: all graphs are alike
            pairs = len(self.rows) * int(self.rows[0, 1]) * int(self.sources[0, 1])
        else:
            pairs = int(self.rows[:, 1] @ self.sources[:, 1])
        return pairs * (self.channels + 8) // 8


@lru_cache(maxsize=64)
def dense_rows(batch: int, nodes: int) -> Array:
    """Return first row and number of rows of each graph of a dense batch, (B, 2)."""
    rows = np.empty((batch, 2), np.int64)
    rows[:, 0] = np.arange(batch) * nodes
    rows[:, 1] = nodes
    return rows
