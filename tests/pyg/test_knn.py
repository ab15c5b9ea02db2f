"""`knn_graph` and `knn` against brute force in numpy, by the conventions of PyTorch Geometric."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch_geometric")

from torch_geometric.nn import pool

from aurel.pyg import knn, knn_graph

BIG = 1_000_000_000
SQUARE = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])


def nearest_pairs(
    y: np.ndarray,
    x: np.ndarray,
    batch_y: np.ndarray,
    batch_x: np.ndarray,
    k: int,
    cosine: bool,
    loop: bool = True,
) -> list[list[int]]:
    """[query, candidate] of the k nearest candidates of each query, nearest first, by loops."""
    pairs = []
    for i in range(len(y)):
        scores = []
        for j in range(len(x)):
            if batch_x[j] != batch_y[i] or (not loop and i == j):
                continue
            if cosine:
                score = -(y[i] @ x[j]) / np.sqrt((y[i] @ y[i]) * (x[j] @ x[j]))
            else:
                score = ((y[i] - x[j]) ** 2).sum()
            scores.append((score, j))
        pairs += [[i, j] for _, j in sorted(scores)[:k]]
    return pairs


def numbered(sizes: list[int], step: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)) * step, sizes)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    k=st.integers(1, 5),
    loop=st.booleans(),
    cosine=st.booleans(),
    step=st.sampled_from([1, 3, BIG]),
    seed=st.integers(0, 10**6),
)
def test_knn_graph(
    sizes: list[int], k: int, loop: bool, cosine: bool, step: int, seed: int
) -> None:
    """Empty graphs, fewer nodes than neighbors and numbers that are left out among them."""
    batch = numbered(sizes, step)
    x = np.random.default_rng(seed).normal(size=(len(batch), 3))
    arguments = torch.from_numpy(x), k, torch.from_numpy(batch), loop
    expected = nearest_pairs(x, x, batch, batch, k, cosine, loop)
    got = knn_graph(*arguments, cosine=cosine)
    assert got.dtype == torch.int64 and got.shape[0] == 2
    assert got.flip(0).t().tolist() == expected
    reverse = knn_graph(*arguments, flow="target_to_source", cosine=cosine)
    assert reverse.t().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=4),
    k=st.integers(1, 5),
    cosine=st.booleans(),
    step=st.sampled_from([1, 3, BIG]),
    seed=st.integers(0, 10**6),
)
def test_knn(sizes: list[tuple[int, int]], k: int, cosine: bool, step: int, seed: int) -> None:
    """Queries without a candidate and graphs without a query among them."""
    batch_x, batch_y = (numbered([pair[side] for pair in sizes], step) for side in (0, 1))
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(len(batch_x), 3)), rng.normal(size=(len(batch_y), 3))
    got = knn(
        torch.from_numpy(x),
        torch.from_numpy(y),
        k,
        torch.from_numpy(batch_x),
        torch.from_numpy(batch_y),
        cosine,
    )
    assert got.dtype == torch.int64 and got.shape[0] == 2
    assert got.t().tolist() == nearest_pairs(y, x, batch_y, batch_x, k, cosine)


@pytest.mark.parametrize("cosine", [False, True])
def test_nodes_that_choose_among_themselves(cosine: bool) -> None:
    """The same tensors, or equal ones, give the same edges."""
    x, batch = torch.randn(9, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    expected = nearest_pairs(*2 * [x.double().numpy()], *2 * [batch.numpy()], 3, cosine)
    for queries in (x, x.clone()):
        assert knn(x, queries, 3, batch, batch, cosine).t().tolist() == expected
    assert knn(x, x, 3).tolist() == knn(x, x.clone(), 3).tolist()


def test_the_examples_of_pyg() -> None:
    """Those of its documentation, with what torch-cluster's own tests expect of them."""
    y = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    one = torch.zeros(4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    for batches in ((), one):
        assert knn(SQUARE, y, 2, *batches).tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    edges = knn_graph(SQUARE, k=2, flow="target_to_source")
    assert edges.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 0, 3, 0, 3, 1, 2]]
    edges = knn_graph(SQUARE, k=2, flow="source_to_target")
    assert edges.tolist() == [[1, 2, 0, 3, 0, 3, 1, 2], [0, 0, 1, 1, 2, 2, 3, 3]]


@pytest.mark.parametrize(("actual", "expected"), [(knn, pool.knn), (knn_graph, pool.knn_graph)])
def test_arguments_are_those_of_pyg(actual: object, expected: object) -> None:
    actual, expected = (inspect.signature(function).parameters for function in (actual, expected))
    assert [*actual] == [*expected]
    assert [p.default for p in actual.values()] == [p.default for p in expected.values()]


def test_nodes_that_coincide_have_k_neighbors() -> None:
    """Where torch-cluster may leave out another node than the node itself."""
    assert knn_graph(torch.zeros(4, 2), k=2).tolist() == [
        [1, 2, 0, 2, 0, 1, 0, 1],
        [0, 0, 1, 1, 2, 2, 3, 3],
    ]


def test_messages() -> None:
    batch = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="flow must be one of source_to_target, target_to_source"):
        knn_graph(SQUARE, 2, flow="both")
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        knn_graph(SQUARE, 0)
    with pytest.raises(ValueError, match="batch must be sorted"):
        knn_graph(SQUARE, 2, batch.flip(0))
    with pytest.raises(ValueError, match=r"batch_y must be a tensor for several graphs, got None"):
        knn(SQUARE, SQUARE, 2, batch)
    with pytest.raises(ValueError, match=r"batch_x must be a tensor for several graphs, got None"):
        knn(SQUARE, SQUARE, 2, None, batch)
    with pytest.raises(ValueError, match=r"sources must have shape \(Q, C=3\), got \(4, 2\)"):
        knn(SQUARE, torch.zeros(4, 3), 2)
