"""Definitions of the neighbor kernels in numpy, by loops in float64; and data for the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METRICS = ("l2", "l1", "cosine", "dot")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Array = NDArray[Any]

# Warnings of numpy inside Triton's interpreter: NaN, and calls that are deprecated.
QUIET = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


def array(x: Tensor) -> Array:
    """Return the values of a tensor as a float64 array."""
    return x.detach().cpu().double().numpy()


def scaled(x: Array) -> Array:
    """Return nodes times a power of two, by which their largest channel lies in [1, 2), or is 0."""
    largest = np.abs(x).max(-1, keepdims=True, initial=0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 1))[1] - 1
    return np.ldexp(x, -exponent)


def scores(
    x: Tensor, metric: str, sources: Tensor | None = None, bias: Tensor | None = None
) -> Array:
    """Return scores (B, N, M), the smaller the nearer; +inf for a node that is not finite."""
    with np.errstate(all="ignore"):
        nodes = array(x)
        others = nodes if sources is None else array(sources)
        if metric == "cosine":
            nodes, others = scaled(nodes), scaled(others)
        target, source = nodes[:, :, None], others[:, None]
        if metric == "l2":
            out = ((source - target) ** 2).sum(-1)
        elif metric == "l1":
            out = np.abs(source - target).sum(-1)
        elif metric == "dot":
            out = -(source * target).sum(-1)
        else:
            product = (source * target).sum(-1)
            square = np.maximum((others**2).sum(-1), 1e-30)[:, None]
            out = -product * np.abs(product) / square
            if bias is not None:
                own = np.maximum((nodes**2).sum(-1), 1e-30)[:, :, None]
                out = 1 - product / np.sqrt(own * square)
        broken = np.isnan(out) if metric == "dot" else ~np.isfinite(out)
        out = np.where(broken, np.inf, out)
        if bias is not None:
            out = out + array(bias)
        return np.where(np.isnan(out), np.inf, out)


def free(
    shape: tuple[int, ...], loop: bool, mask: Tensor | None, source_mask: Tensor | None
) -> Array:
    """Return which sources may be neighbors of a node, (B, N, M) bool."""
    out = np.ones(shape, bool)
    if mask is not None:
        out &= mask.cpu().numpy()[:, :, None]
    if source_mask is not None:
        out &= source_mask.cpu().numpy()[:, None]
    if not loop:
        out &= ~np.eye(shape[1], dtype=bool)
    return out


def neighbors(
    x: Tensor,
    k: int,
    metric: str,
    loop: bool = True,
    mask: Tensor | None = None,
    sources: Tensor | None = None,
    source_mask: Tensor | None = None,
    bias: Tensor | None = None,
    dilation: int = 1,
) -> Tensor:
    """Return the neighbors (B, N, K) by a stable sort, node by node."""
    score = scores(x, metric, sources, bias)
    allowed = free(score.shape, loop, mask, mask if sources is None else source_mask)
    out = np.full((*x.shape[:2], k), -1)
    for b, i in np.ndindex(*x.shape[:2]):
        candidates = allowed[b, i].nonzero()[0]
        order = np.argsort(score[b, i, candidates], kind="stable")
        chosen = candidates[order][: k * dilation : dilation]
        out[b, i, : len(chosen)] = chosen
    return torch.from_numpy(out)


def aggregate(values: Tensor, lists: Tensor, reduce: str) -> tuple[Array, Array]:
    """Return the reduction (B, N, C) and the winners of a maximum; slots out of range are empty."""
    rows, listed = array(values), lists.cpu().numpy()
    out = np.zeros((*listed.shape[:2], rows.shape[2]))
    winner = np.zeros(out.shape, np.int64)
    for b, i in np.ndindex(*listed.shape[:2]):
        chosen = [j for j in listed[b, i] if 0 <= j < rows.shape[1]]
        if not chosen:
            continue
        picked = rows[b, chosen]
        if reduce == "max":
            slot = picked.argmax(0)  # the first of equals, and the first NaN before all
            out[b, i] = np.take_along_axis(picked, slot[None], 0)[0]
            winner[b, i] = np.array(chosen)[slot]
        else:
            with np.errstate(invalid="ignore"):
                out[b, i] = picked.mean(0) if reduce == "mean" else picked.sum(0)
    return out, winner


def aggregate_backward(
    grad: Tensor, lists: Tensor, winner: Array, nodes: int, reduce: str
) -> Array:
    """Return the gradient of `aggregate`, (B, M, C)."""
    rows, listed = array(grad), lists.cpu().numpy()
    out = np.zeros((rows.shape[0], nodes, rows.shape[2]))
    channels = np.arange(rows.shape[2])
    for b, i in np.ndindex(*listed.shape[:2]):
        chosen = [j for j in listed[b, i] if 0 <= j < nodes]
        if reduce == "max" and chosen:
            np.add.at(out[b], (winner[b, i], channels), rows[b, i])
        for j in chosen if reduce != "max" else ():
            out[b, j] += rows[b, i] / (len(chosen) if reduce == "mean" else 1)
    return out


def all_ties(x: Tensor, values: Tensor, k: int, metric: str, mask: Tensor | None) -> Array:
    """Return the normalized adjacency (B, N, N) of all scores no worse than the K-th best."""
    score = scores(x, metric)
    allowed = free(score.shape, True, mask, mask)
    out = np.zeros(score.shape)
    for b in range(len(x)):
        for i in range(x.shape[1]):
            among = np.sort(score[b, i, allowed[b, i]])
            if len(among):
                out[b, i] = allowed[b, i] & (score[b, i] <= among[min(k, len(among)) - 1])
        scale = np.maximum(out[b].sum(1), 1) ** -0.5
        out[b] *= scale[:, None] * scale
    return out


def integers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return small integers: distances are exact in any order of summation, and often tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(DEVICE, dtype)


@dataclass
class Case:
    """Arguments of a choice of neighbors, in the order of the operators."""

    x: Tensor
    sources: Tensor | None
    bias: Tensor | None
    mask: Tensor | None
    source_mask: Tensor | None
    k: int
    metric: str
    loop: bool
    dilation: int

    def arguments(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    def neighbors(self) -> Tensor:
        return neighbors(**vars(self))


@st.composite
def cases(draw: st.DrawFn, most_nodes: int = 20, metrics: tuple[str, ...] = METRICS) -> Case:
    """Generate a choice among integer-valued features, in any layout of memory, with any option.

    The cosine has no bias here: with one, its scores are rounded twice, and equal ones can differ.
    """
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)

    def some_mask(*shape: int) -> Tensor | None:
        found = torch.rand(shape, generator=generator) < 0.7
        return found.to(DEVICE) if draw(st.booleans()) else None

    metric, other = draw(st.sampled_from(metrics)), draw(st.booleans())
    loop = other or draw(st.booleans())
    batch, nodes = draw(st.integers(1, 2)), draw(st.integers(1 if loop else 2, most_nodes))
    columns = draw(st.integers(1, most_nodes)) if other else nodes
    channels, dtype = draw(st.integers(1, 40)), draw(st.sampled_from(DTYPES))
    x = integers(batch, nodes, channels, dtype=dtype, seed=seed)
    if draw(st.booleans()):
        x = x.mT.contiguous().mT
    bias = None
    if metric != "cosine" and draw(st.booleans()):
        shape = (nodes, columns) if draw(st.booleans()) else (batch, nodes, columns)
        bias = integers(*shape, seed=seed + 2)
    candidates = columns if loop else columns - 1
    k = draw(st.integers(1, candidates))
    return Case(
        x=x,
        sources=integers(batch, columns, channels, dtype=dtype, seed=seed + 1) if other else None,
        bias=bias,
        mask=some_mask(batch, nodes),
        source_mask=some_mask(batch, columns) if other else None,
        k=k,
        metric=metric,
        loop=loop,
        dilation=draw(st.integers(1, min(3, candidates // k))),
    )


def case(x: Tensor, k: int, metric: str = "l2", **options: Any) -> Case:
    """Return a choice with these options, and defaults for the others."""
    rest = dict.fromkeys(("sources", "bias", "mask", "source_mask"))
    return Case(x=x, k=k, metric=metric, **{**rest, "loop": True, "dilation": 1, **options})


def assert_nearest(got: Tensor, choice: Case, rtol: float = 1e-5) -> None:
    """Assert that the neighbors are as near as the nearest are, rank by rank, but for rounding."""
    score = scores(choice.x, choice.metric, choice.sources, choice.bias)
    chosen, want = got.cpu(), choice.neighbors()
    assert torch.equal(chosen < 0, want < 0)
    assert all(len({*row}) == len(row) for row in chosen[(chosen >= 0).all(2)].tolist())
    near = np.take_along_axis(score, chosen.clamp_min(0).numpy(), 2)
    nearest = np.take_along_axis(score, want.clamp_min(0).numpy(), 2)
    np.testing.assert_allclose(near, nearest, rtol=rtol, atol=0)
