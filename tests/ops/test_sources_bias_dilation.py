"""Neighbors among other nodes, with a bias and a dilation, against the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.choosing_ops import METRICS
from helpers.every_backend import every_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel import ops

every_metric = pytest.mark.parametrize("metric", METRICS)


@dataclass
class Choice:
    """Integer-valued nodes and options of a choice, with float64 scores that are exact."""

    x: Tensor
    options: dict[str, Any]
    rng: np.random.Generator

    def arrays(self) -> dict[str, Any]:
        return {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in self.options.items()
        }

    def lists(self) -> np.ndarray:
        return oracle.neighbors(self.x.numpy(), **self.arrays())


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    other, metric = draw(st.booleans()), draw(st.sampled_from(METRICS))
    loop = other or draw(st.booleans())
    batch, nodes = draw(st.integers(1, 3)), draw(st.integers(1 if loop else 2, 9))
    channels, sources = rng.integers(1, 7), draw(st.integers(1, 12)) if other else nodes
    candidates = sources if loop else sources - 1
    k = draw(st.integers(1, candidates))

    def features(*shape: int) -> Tensor:
        return torch.from_numpy(rng.integers(-4, 5, shape)).double()

    def some(*shape: int) -> Tensor | None:
        return torch.from_numpy(rng.random(shape) < 0.7) if draw(st.booleans()) else None

    bias = None
    if draw(st.booleans()):
        shape = (nodes, sources) if draw(st.booleans()) else (batch, nodes, sources)
        # The cosine with a bias is rounded: no ties then.
        exact = metric != "cosine"
        bias = features(*shape) if exact else torch.from_numpy(rng.normal(size=shape))
    options = {
        "k": k,
        "metric": metric,
        "loop": loop,
        "mask": some(batch, nodes),
        "sources": features(batch, sources, channels) if other else None,
        "source_mask": some(batch, sources) if other else None,
        "bias": bias,
        "dilation": draw(st.integers(1, candidates // k)),
    }
    return Choice(features(batch, nodes, channels), options, rng)


@every_backend
@settings(max_examples=150, deadline=None)
@given(case=choices(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_knn_graph_equals_the_oracle(backend: str, case: Choice, dtype: torch.dtype) -> None:
    options = dict(case.options)
    if options["sources"] is not None:
        options["sources"] = options["sources"].to(dtype)
    got = ops.knn_graph(case.x.to(dtype), **options, backend=backend)
    np.testing.assert_array_equal(got.numpy(), case.lists())


@every_backend
@settings(max_examples=100, deadline=None)
@given(case=choices())
def test_max_relative_and_its_gradients_equal_the_oracle(backend: str, case: Choice) -> None:
    x, options = case.x.clone().requires_grad_(), dict(case.options)
    sources = options["sources"]
    leaves = [x]
    if sources is not None:
        options["sources"] = sources.clone().requires_grad_()
        leaves.append(options["sources"])
    out, neighbors = ops.knn_max_relative(x, **options, backend=backend)
    lists = case.lists()
    np.testing.assert_array_equal(neighbors.numpy(), lists)
    among = (x if sources is None else sources).detach().numpy()
    np.testing.assert_array_equal(
        out.detach().numpy(), oracle.max_relative(case.x.numpy(), lists, among)
    )
    grad = case.rng.integers(-3, 4, out.shape).astype(np.float64)
    grads = torch.autograd.grad(out, leaves, torch.from_numpy(grad))
    to_sources = oracle.source_gradient(among, lists, grad)
    to_nodes = oracle.node_gradient(lists, grad)
    expected = [to_nodes + to_sources] if sources is None else [to_nodes, to_sources]
    for got, want in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


@every_backend
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(METRICS), k=st.integers(1, 6))
def test_ragged_sources_equal_the_oracle(backend: str, seed: int, metric: str, k: int) -> None:
    """Compare graph by graph; some graphs have no node, or no source."""
    rng = np.random.default_rng(seed)
    graphs = int(rng.integers(1, 5))
    batch, source_batch = (
        np.repeat(np.arange(graphs), rng.integers(0, 8, graphs)) for _ in range(2)
    )
    x, sources = (
        rng.integers(-4, 5, (len(each), 3)).astype(np.float64) for each in (batch, source_batch)
    )
    lists = np.full((len(x), k), -1)
    for graph in range(graphs):
        rows, among = np.flatnonzero(batch == graph), np.flatnonzero(source_batch == graph)
        if len(rows) and len(among):
            chosen = min(k, len(among))
            found = oracle.neighbors(x[None, rows], chosen, metric, sources=sources[None, among])
            lists[rows, :chosen] = among[found[0]]
    leaves = [torch.from_numpy(each).requires_grad_() for each in (x, sources)]
    given_sources = {"sources": leaves[1], "source_batch": torch.from_numpy(source_batch)}
    options = {**given_sources, "backend": backend}
    graph_of = torch.from_numpy(batch)
    got = ops.ragged_knn_graph(leaves[0], graph_of, k, metric, **options)
    np.testing.assert_array_equal(got.numpy(), lists)
    out, again = ops.ragged_knn_max_relative(leaves[0], graph_of, k, metric, **options)
    assert torch.equal(again, got)
    want = oracle.max_relative(x[None], lists[None], sources[None])[0]
    np.testing.assert_array_equal(out.detach().numpy(), want)
    grad = rng.integers(-3, 4, out.shape).astype(np.float64)
    grads = torch.autograd.grad(out, leaves, torch.from_numpy(grad))
    parts = lists[None], grad[None]
    np.testing.assert_array_equal(grads[0].numpy()[None], oracle.node_gradient(*parts))
    np.testing.assert_array_equal(
        grads[1].numpy()[None], oracle.source_gradient(sources[None], *parts)
    )


@every_backend
@every_metric
def test_infinite_and_unknown_biases(metric: str, backend: str) -> None:
    """-inf is the nearest, +inf and NaN the farthest; ties go to the lowest index."""
    x = torch.arange(1.0, 13.0).view(1, 6, 2)
    bias = torch.zeros(6, 6)
    bias[:, 4], bias[:, 1], bias[:, 0] = -torch.inf, torch.inf, torch.nan
    lists = ops.knn_graph(x, 6, metric, bias=bias, backend=backend)
    want = oracle.neighbors(x.numpy(), 6, metric, bias=bias.numpy())
    np.testing.assert_array_equal(lists[..., 0].numpy(), 4)
    np.testing.assert_array_equal(lists[..., -2:].numpy(), want[..., -2:])
    assert lists[0, 0, -2:].tolist() == [0, 1]
    for value in (torch.inf, torch.nan, -torch.inf):
        every = torch.full((1, 6, 6), value)
        lists = ops.knn_graph(x, 6, metric, bias=every, backend=backend)
        assert torch.equal(lists, torch.arange(6).expand(1, 6, 6))


@every_backend
@every_metric
def test_a_bias_of_zero_or_of_a_row_changes_no_neighbor(metric: str, backend: str) -> None:
    x, sources = torch.randn(2, 9, 5), torch.randn(2, 11, 5)
    want = ops.knn_graph(x, 4, metric, sources=sources, backend=backend)
    for bias in (torch.zeros(9, 11), torch.zeros(2, 9, 11), torch.full((9, 11), 0.5)):
        got = ops.knn_graph(x, 4, metric, sources=sources, bias=bias, backend=backend)
        assert torch.equal(got, want)


@every_backend
def test_a_bias_is_added_to_the_distance(backend: str) -> None:
    """Squared for l2; 1 - cos for the cosine."""
    x = torch.tensor([[[1.0, 0.0]]])
    sources = torch.tensor([[[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]])
    distances = {
        "l2": [4.0, 2.0, 4.0],
        "l1": [2.0, 2.0, 2.0],
        "cosine": [1 - 5**-0.5, 1.0, 2.0],
        "dot": [-1.0, 0.0, 1.0],
    }
    for metric, (first, second, third) in distances.items():
        for sign in (-1, 1):  # on either side of where the first two are equally near
            bias = torch.tensor([[second - first + 1e-3 * sign, 0.0, 9.0 - third]])
            options = {"sources": sources, "bias": bias, "backend": backend}
            lists = ops.knn_graph(x, 3, metric, **options)[0, 0].tolist()
            assert lists == ([0, 1, 2] if sign < 0 else [1, 0, 2])


@every_backend
@every_metric
def test_a_bias_of_another_dtype_and_its_gradient(metric: str, backend: str) -> None:
    x = torch.randn(2, 7, 5, requires_grad=True)
    bias = torch.randn(7, 7, dtype=torch.float64, requires_grad=True)
    out, lists = ops.knn_max_relative(x, 3, metric, bias=bias, backend=backend)
    assert torch.autograd.grad(out.sum(), bias, allow_unused=True) == (None,)
    want = ops.knn_graph(x, 3, metric, bias=bias.float(), backend=backend)
    assert torch.equal(lists, want)
    halves = x.detach().bfloat16()
    wide = ops.knn_graph(halves.float(), 3, metric, bias=bias, backend=backend)
    assert torch.equal(ops.knn_graph(halves, 3, metric, bias=bias, backend=backend), wide)


@every_backend
@every_metric
def test_dilation_takes_every_dth(metric: str, backend: str) -> None:
    x, sources = torch.randn(2, 9, 5), torch.randn(2, 13, 5)
    every = ops.knn_graph(x, 12, metric, sources=sources, backend=backend)
    for dilation in (2, 3, 4, 6):
        k = 12 // dilation
        options = {"sources": sources, "dilation": dilation, "backend": backend}
        lists = ops.knn_graph(x, k, metric, **options)
        assert torch.equal(lists, every[..., ::dilation])
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 4:], mask[1, :7] = False, False
    few = ops.knn_graph(x, 4, metric, mask=mask, dilation=2, loop=False, backend=backend)
    assert torch.equal((few >= 0).sum(2)[mask], torch.tensor([2] * 4 + [1] * 2))


@every_backend
def test_sources_that_equal_the_nodes_give_the_same_neighbors(backend: str) -> None:
    x = torch.randn(2, 9, 5)
    mask = torch.rand(2, 9) < 0.7
    for metric in METRICS:
        want, lists = ops.knn_max_relative(x, 3, metric, mask=mask, backend=backend)
        given_sources = {"sources": x.clone(), "source_mask": mask, "mask": mask}
        out, chosen = ops.knn_max_relative(x, 3, metric, **given_sources, backend=backend)
        assert torch.equal(chosen, lists) and torch.equal(out, want)


@every_backend
def test_strided_sources_and_biases(backend: str) -> None:
    x, sources = torch.randn(5, 7, 2).permute(2, 1, 0), torch.randn(5, 2, 9).permute(1, 2, 0)
    bias, source_mask = torch.randn(9, 7).t(), (torch.rand(9, 2) < 0.7).t()
    options = {"sources": sources, "bias": bias, "source_mask": source_mask}
    dense = {name: value.contiguous() for name, value in options.items()}
    for metric in METRICS:
        got = ops.knn_max_relative(x, 3, metric, **options, backend=backend)
        want = ops.knn_max_relative(x.contiguous(), 3, metric, **dense, backend=backend)
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    expanded = torch.randn(2, 7, 1).expand(2, 7, 9)
    got = ops.knn_graph(x, 3, sources=sources, bias=expanded, backend=backend)
    assert torch.equal(got, ops.knn_graph(x, 3, sources=sources, backend=backend))


@pytest.mark.parametrize("op", [ops.knn_graph, ops.knn_max_relative])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": torch.zeros(2, 6, 4)}, r"^sources must have shape \(B=2, M, C=3\), got"),
        ({"sources": torch.zeros(3, 6, 3)}, r"^sources must have shape \(B=2, M, C=3\), got"),
        ({"sources": torch.zeros(2, 6, 3).long()}, "^sources must be floating point, got"),
        ({"sources": torch.zeros(2, 6, 3, device="meta")}, "^sources must be on cpu, got meta"),
        ({"sources": torch.zeros(2, 6, 3), "loop": False}, "^loop must be True with sources"),
        ({"sources": torch.zeros(2, 1, 3)}, r"^k must be in 1\.\.1 \(the number of nodes\), got 2"),
        ({"source_mask": torch.ones(2, 5) > 0}, "^source_mask must be None without sources"),
        (
            {"sources": torch.zeros(2, 6, 3), "source_mask": torch.ones(2, 5) > 0},
            r"^source_mask must have shape \(B=2, N=6\), got \(2, 5\)",
        ),
        (
            {"sources": torch.zeros(2, 6, 3), "source_mask": torch.ones(2, 6)},
            "^source_mask must be bool",
        ),
        ({"bias": torch.zeros(5, 6)}, r"^bias must have shape \(N=5, M=5\), got \(5, 6\)"),
        ({"bias": torch.zeros(3, 5, 5)}, r"^bias must have shape \(B=2, N=5, M=5\), got"),
        ({"bias": torch.zeros(5)}, r"^bias must have shape \(B=2, N=5, M=5\), got"),
        ({"bias": torch.zeros(5, 5).long()}, "^bias must be floating point, got torch.int64"),
        ({"bias": torch.zeros(5, 5, device="meta")}, "^bias must be on cpu, got meta"),
        ({"dilation": 3}, r"^k \* dilation must be in 1\.\.5 \(the number of nodes\), got 2 \* 3"),
        ({"dilation": 0}, "^dilation must be 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_named(op: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op(torch.zeros(2, 5, 3), 2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": torch.zeros(6, 3)}, "^source_batch must be given with its counterpart"),
        ({"source_batch": torch.zeros(6).long()}, "^sources must be given with its counterpart"),
        (
            {"sources": torch.zeros(6, 4), "source_batch": torch.zeros(6).long()},
            r"^sources must have shape \(Q, C=3\), got \(6, 4\)",
        ),
        (
            {"sources": torch.zeros(6, 3), "source_batch": torch.zeros(5).long()},
            r"^source_batch must have shape \(P=6\), got \(5,\)",
        ),
        (
            {"sources": torch.zeros(6, 3), "source_batch": torch.tensor([0, 1, 0, 1, 1, 1])},
            "^source_batch must be sorted",
        ),
        (
            {"sources": torch.zeros(6, 3), "source_batch": torch.zeros(6)},
            "^source_batch must be int64",
        ),
        (
            {
                "sources": torch.zeros(6, 3),
                "source_batch": torch.zeros(6).long(),
                "loop": False,
            },
            "^loop must be True with sources",
        ),
    ],
)
@every_backend
def test_bad_ragged_arguments_are_named(
    options: dict[str, Any], message: str, backend: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ops.ragged_knn_graph(
            torch.zeros(5, 3), torch.zeros(5).long(), 2, **options, backend=backend
        )
