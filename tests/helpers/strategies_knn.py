"""Random graphs for the tests of the neighborhood ops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

METRICS = ("l2", "l1", "cosine", "dot")


@dataclass
class Case:
    x: Tensor
    k: int
    metric: str
    loop: bool
    mask: Tensor | None
    rng: np.random.Generator


@st.composite
def cases(draw: st.DrawFn, integers: bool = True, metrics: tuple[str, ...] = METRICS) -> Case:
    """Generate features, and arguments that fit them. Small integers make every distance exact."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    loop = draw(st.booleans())
    nodes = draw(st.integers(1 if loop else 2, 19))
    # In one dimension all cosines tie, which only integers do exactly.
    shape = (draw(st.integers(1, 3)), nodes, draw(st.integers(1 if integers else 2, 12)))
    x = rng.integers(-4, 5, shape) if integers else rng.normal(size=shape)
    masked = draw(st.booleans())
    return Case(
        torch.from_numpy(x).double(),
        draw(st.integers(1, nodes if loop else nodes - 1)),
        draw(st.sampled_from(metrics)),
        loop,
        torch.from_numpy(rng.random(shape[:2]) < 0.7) if masked else None,
        rng,
    )
