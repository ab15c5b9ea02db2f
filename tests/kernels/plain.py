"""What the kernels must compute, in float64 and without tricks; and the data to test them with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METRICS = ("l2", "l1", "cosine", "dot")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# What numpy says of NaN, and of the age of some calls, inside Triton's interpreter.
QUIET = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


def scores(x: Tensor, metric: str) -> Tensor:
    """(B, N, N), the smaller the nearer; a node that is broken is the farthest."""
    x = x.double()
    products = x @ x.mT
    if metric == "cosine":
        # orders as the cosine does, and keeps equal cosines of integers equal
        out = -products * products.abs() / x.square().sum(-1).clamp_min(1e-24)[:, None]
    elif metric == "dot":
        out = -products
    else:
        gap = x[:, :, None] - x[:, None]
        out = gap.abs().sum(-1) if metric == "l1" else gap.square().sum(-1)
    lowest = -torch.inf if metric == "dot" else torch.inf
    return out.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=lowest)


def neighbors(
    x: Tensor, k: int, metric: str, loop: bool = True, mask: Tensor | None = None
) -> Tensor:
    """(B, N, K): a stable sort, graph by graph and node by node."""
    out = torch.full((*x.shape[:2], k), -1)
    for b, score in enumerate(scores(x.cpu(), metric)):
        here = range(x.shape[1]) if mask is None else mask[b].nonzero().flatten().tolist()
        for i in here:
            chosen = [j for j in score[i].argsort(stable=True).tolist() if j in here]
            chosen = [j for j in chosen if loop or j != i][:k]
            out[b, i, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
    return out


def all_ties(x: Tensor, values: Tensor, k: int, metric: str, mask: Tensor | None) -> Tensor:
    """D^-1/2 A D^-1/2 values, A holding all whose score is no worse than the K-th best's."""
    score = scores(x.cpu(), metric)
    out = torch.zeros_like(values, dtype=torch.float64, device="cpu")
    for b in range(len(x)):
        here = torch.arange(x.shape[1]) if mask is None else mask[b].nonzero().flatten().cpu()
        if len(here):
            among = score[b][here][:, here]
            threshold = among.sort(dim=1).values[:, min(k, len(here)) - 1]
            adjacency = (among <= threshold[:, None]).double()
            scale = adjacency.sum(1).rsqrt()
            out[b, here] = (
                scale[:, None] * adjacency @ (scale[:, None] * values[b].cpu().double()[here])
            )
    return out


def integers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Small integers: their distances are exact in any order of summation, and often tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(DEVICE, dtype)


@dataclass
class Case:
    """A random graph problem that fits together."""

    x: Tensor
    k: int
    metric: str
    loop: bool
    mask: Tensor | None
    seed: int


@st.composite
def cases(draw: st.DrawFn, most_nodes: int = 20) -> Case:
    """Draw a Case of integer-valued features, laid out in memory in one way or another."""
    seed = draw(st.integers(0, 2**31))
    loop = draw(st.booleans())
    batch, nodes = draw(st.integers(1, 2)), draw(st.integers(1 if loop else 2, most_nodes))
    x = integers(
        batch, nodes, draw(st.integers(1, 40)), dtype=draw(st.sampled_from(DTYPES)), seed=seed
    )
    if draw(st.booleans()):
        x = x.mT.contiguous().mT
    masked = draw(st.booleans())
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, nodes, generator=generator) < 0.7 if masked else None
    return Case(
        x,
        draw(st.integers(1, nodes if loop else nodes - 1)),
        draw(st.sampled_from(METRICS)),
        loop,
        None if mask is None else mask.to(DEVICE),
        seed,
    )
