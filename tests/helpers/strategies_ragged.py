"""Random batches of graphs of any size, empty and single-node ones among them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from helpers.every_backend import NUMBA

NO_EXTENSIONS = find_spec("torch_cluster") is None or find_spec("torch_scatter") is None
needs_extensions = pytest.mark.skipif(
    NO_EXTENSIONS, reason="torch-cluster and torch-scatter: make test-pyg"
)
every_backend = pytest.mark.parametrize(
    "backend", ["definition", "torch", NUMBA, pytest.param("pyg", marks=needs_extensions)]
)


@dataclass
class RaggedCase:
    x: Tensor  # (M, C)
    batch: Tensor  # (M,)
    k: int
    loop: bool
    rng: np.random.Generator

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (B, N, C), padded with NaN, the mask, and each one's row of x or -1."""
        sizes = self.batch.bincount(minlength=1)
        nodes = max(int(sizes.max()), self.k + (not self.loop))
        row = torch.full((len(sizes), nodes), -1)
        start = 0
        for graph, size in enumerate(sizes.tolist()):
            row[graph, :size] = torch.arange(start, start + size)
            start += size
        mask = row >= 0
        x = torch.full((*row.shape, self.x.shape[1]), torch.nan, dtype=self.x.dtype)
        x[mask] = self.x
        return x, mask, row

    def to_rows(self, lists: Tensor, row: Tensor) -> Tensor:
        """Return neighbor lists of the dense form, (B, N, K), as rows of x, (M, K)."""
        graphs = torch.arange(len(lists))[:, None, None]
        return row[graphs, lists.clamp_min(0)].where(lists >= 0, -1)[row >= 0]


@st.composite
def ragged_cases(draw: st.DrawFn, integers: bool = True) -> RaggedCase:
    """Generate features and arguments. Small integers make distances exact and ties frequent."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # torch-cluster keeps the order of up to ten nodes, not that of more.
    size = st.integers(0, 6) | st.integers(0, 17)
    sizes = draw(st.lists(size, min_size=1, max_size=4))
    shape = (sum(sizes), draw(st.integers(1, 4)))
    x = rng.integers(-2, 3, shape) if integers else rng.normal(size=shape)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return RaggedCase(
        torch.from_numpy(x).double(), batch, draw(st.integers(1, 7)), draw(st.booleans()), rng
    )
