"""ragged_knn_graph: the dense op's neighbors with a mask, by padding and by torch-cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.strategies_ragged import RaggedCase, every_backend, needs_extensions, ragged_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from aurel.ops import pyg_support
from aurel.ops.backend import use_backend
from aurel.ops.knn_graph import knn_graph
from aurel.ops.ragged_knn_graph import (
    ragged_knn_graph,
    ragged_knn_graph_reference,
)

METRICS = ("l2", "l1", "cosine", "dot")


def numpy_lists(case: RaggedCase, metric: str) -> np.ndarray:
    """Return the lists of the oracle, (M, K), graph by graph."""
    out = np.full((len(case.x), case.k), -1)
    for graph in set(case.batch.tolist()):
        rows = np.flatnonzero(case.batch.numpy() == graph)
        lists = oracle.neighbors(case.x.numpy()[None, rows], case.k, metric, case.loop)[0]
        out[rows, : lists.shape[1]] = np.where(lists < 0, -1, rows[lists])
    return out


@every_backend
@settings(max_examples=200, deadline=None)
@given(
    case=ragged_cases(),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_oracle_and_dense_op(
    backend: str, case: RaggedCase, metric: str, dtype: torch.dtype
) -> None:
    metric = "l2" if backend == "pyg" else metric
    x, mask, row = case.dense()
    got = ragged_knn_graph(
        case.x.to(dtype), case.batch, case.k, metric, loop=case.loop, backend=backend
    )
    np.testing.assert_array_equal(got.numpy(), numpy_lists(case, metric))
    dense = knn_graph(x.to(dtype), case.k, metric, loop=case.loop, mask=mask)
    assert torch.equal(got, case.to_rows(dense, row))
    want = ragged_knn_graph_reference(case.x, case.batch, case.k, metric, loop=case.loop)
    assert torch.equal(got, want)


@every_backend
@settings(max_examples=50, deadline=None)
@given(case=ragged_cases(integers=False))
def test_graphs_are_independent(backend: str, case: RaggedCase) -> None:
    """A graph depends neither on the nodes of others nor on empty graphs before it."""
    want = ragged_knn_graph(case.x, case.batch, case.k, loop=case.loop, backend=backend)
    moved = torch.where((case.batch == 0)[:, None], case.x + 1000, case.x)
    got = ragged_knn_graph(moved, 3 * case.batch, case.k, loop=case.loop, backend=backend)
    others = case.batch > 0
    assert torch.equal(got[others], want[others])
    listed = want >= 0
    assert torch.equal(case.batch[want[listed]], case.batch[listed.nonzero()[:, 0]])


@every_backend
def test_many_ties_are_broken_by_the_index(backend: str) -> None:
    x = torch.zeros(60, 3)
    x[10:20] = torch.tensor([1.0, 0, 0])
    batch = torch.zeros(60, dtype=torch.int64)
    for loop in (True, False):
        lists = ragged_knn_graph(x, batch, 4, loop=loop, backend=backend)
        assert lists[40].tolist() == [0, 1, 2, 3]
        assert lists[2].tolist() == ([0, 1, 2, 3] if loop else [0, 1, 3, 4])
        assert lists[12].tolist() == ([10, 11, 12, 13] if loop else [10, 11, 13, 14])


@every_backend
def test_shapes_and_layouts(backend: str) -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert ragged_knn_graph(torch.randn(0, 3), empty, 2, backend=backend).shape == (0, 2)
    one = torch.zeros(1, dtype=torch.int64)
    assert ragged_knn_graph(torch.randn(1, 3), one, 2, backend=backend).tolist() == [[0, -1]]
    none = ragged_knn_graph(torch.randn(1, 3), one, 2, loop=False, backend=backend)
    assert none.tolist() == [[-1, -1]]
    batch = torch.tensor([0, 0, 0, 4, 4, 7])
    assert ragged_knn_graph(torch.randn(6, 0), batch, 2, backend=backend).tolist() == [
        *[[0, 1]] * 3,
        *[[3, 4]] * 2,
        [5, -1],
    ]
    x = torch.randn(5, 6)
    want = ragged_knn_graph(x.t().contiguous(), batch, 2, backend=backend)
    assert torch.equal(ragged_knn_graph(x.t(), batch, 2, backend=backend), want)


def test_sizes_far_apart_are_not_padded_to_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("aurel.ops.ragged_knn_graph")
    shapes = []

    def spy(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return knn_graph(x, *args, **options)

    monkeypatch.setattr(module, "knn_graph", spy)
    batch = torch.arange(5).repeat_interleave(torch.tensor([100, 3, 4, 1, 0]))
    ragged_knn_graph(torch.randn(108, 2), batch, 3, backend="torch")
    assert sorted(shapes) == [(1, 128, 2), (3, 4, 2)]


def test_nan_stays_in_its_graph() -> None:
    x, batch = torch.randn(9, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    want = ragged_knn_graph(x, batch, 3)
    x[2] = torch.nan
    got = ragged_knn_graph(x, batch, 3)
    assert torch.equal(got[4:], want[4:])
    assert (got[[0, 1, 3]] != 2).all()


@needs_extensions
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_torch_cluster_refuses_what_it_cannot_order(value: float) -> None:
    x, batch = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    x[1, 1] = value
    with pytest.raises(ValueError, match="^ragged_knn_graph: .* serves finite features"):
        ragged_knn_graph(x, batch, 2, backend="pyg")
    with pytest.raises(ValueError, match="serves float32 and float64, got torch.bfloat16"):
        ragged_knn_graph(x.bfloat16(), batch, 2, backend="pyg")
    with pytest.raises(ValueError, match="measures l2 distances alone, got metric='dot'"):
        ragged_knn_graph(x, batch, 2, "dot", backend="pyg")


@needs_extensions
def test_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_cluster

    calls = []
    original = torch_cluster.knn_graph

    def spy(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(torch_cluster, "knn_graph", spy)
    x, batch = torch.randn(6, 3), torch.zeros(6, dtype=torch.int64)
    ragged_knn_graph(x, batch, 2)
    assert not calls
    with use_backend("pyg"):
        ragged_knn_graph(x, batch, 2)
        assert calls
        with pytest.raises(
            ValueError, match="backend='pyg' cannot serve this call: serves ragged graphs"
        ):
            knn_graph(x[None], 2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyg_support, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"cannot serve .*: needs torch-cluster: pip install .*pyg-e"
    ):
        ragged_knn_graph(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64), 1, backend="pyg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(2, 5, 3)}, r"x must have shape \(P, C\), got \(2, 5, 3\)"),
        ({"x": torch.zeros(5, 3, dtype=torch.int64)}, "x must be floating point"),
        (
            {"batch": torch.zeros(4, dtype=torch.int64)},
            r"batch must have shape \(P=5\), got \(4,\)",
        ),
        ({"batch": torch.zeros(5)}, r"batch must be int64 .*, got torch.float32"),
        (
            {"batch": torch.tensor([0, 1, 0, 1, 1])},
            "batch must be sorted, got a smaller number after",
        ),
        ({"batch": torch.tensor([-1, 0, 0, 1, 1])}, "batch must number graphs from 0 on"),
        ({"batch": torch.zeros(5, dtype=torch.int64, device="meta")}, "^batch must be on cpu"),
        ({"k": 0}, "k must be 1 or more, got 0"),
        ({"metric": "euclid"}, "metric must be one of l2, l1, cosine, dot, got 'euclid'"),
        ({"backend": "cuda"}, "backend must be one of"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    good = {"x": torch.zeros(5, 3), "batch": torch.zeros(5, dtype=torch.int64), "k": 2}
    with pytest.raises(ValueError, match=message):
        ragged_knn_graph(**good | arguments)
