"""Neighbors and maxima in graphs so small that several rows are chosen at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.ops import knn_graph, knn_max_relative, neighbor_aggregate

pytest.importorskip("numba")

SIZES = [1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 27, 31, 33, 41, 63, 64, 65]


def numbers_of_neighbors(nodes: int, loop: bool) -> set[int]:
    """Return some numbers of neighbors, from 1 to all."""
    candidates = nodes if loop else nodes - 1
    return {min(k, candidates) for k in (1, 4, 24, candidates)} - {0}


def expected_neighbors(scores: np.ndarray, valid: np.ndarray, k: int, loop: bool) -> np.ndarray:
    """Sort the allowed sources of each row by score, then by index; -1 where they are too few."""
    batch, nodes, _ = scores.shape
    lists = np.full((batch, nodes, k), -1)
    for b in range(batch):
        for i in np.flatnonzero(valid[b]):
            allowed = [j for j in np.flatnonzero(valid[b]) if loop or j != i]
            nearest = sorted(allowed, key=lambda j: (scores[b, i, j], j))[:k]
            lists[b, i, : len(nearest)] = nearest
    return lists


def scores_of(x: np.ndarray, metric: str) -> np.ndarray:
    """Return exact scores of nodes of small integers, NaN as +inf."""
    left, right = x[:, :, None], x[:, None]
    with np.errstate(invalid="ignore"):
        if metric == "l2":
            scores = ((left - right) ** 2).sum(-1)
        elif metric == "l1":
            scores = np.abs(left - right).sum(-1)
        else:
            scores = -(left * right).sum(-1)
    return np.where(np.isnan(scores), np.inf, scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["l2", "l1", "dot"])
@pytest.mark.parametrize("loop", [True, False])
def test_neighbors_equal_a_sort(metric: str, loop: bool, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    for nodes in SIZES:
        x = generator.integers(-2, 3, (3, nodes, 2)).astype(float)  # many equal scores
        if metric != "dot":  # distances from a node of infinities are inf or NaN
            x[1, generator.integers(nodes, size=nodes // 3)] = np.inf
        mask = generator.random((3, nodes)) < 0.7
        for valid in (np.ones_like(mask), mask):
            for k in numbers_of_neighbors(nodes, loop):
                found = knn_graph(
                    torch.tensor(x, dtype=dtype),
                    k,
                    metric=metric,  # type: ignore[arg-type]
                    loop=loop,
                    mask=torch.tensor(valid),
                    backend="numba",
                )
                expected = expected_neighbors(scores_of(x, metric), valid, k, loop)
                assert np.array_equal(found.numpy(), expected), (nodes, k)


@pytest.mark.parametrize("loop", [True, False])
def test_cosines_equal_a_sort(loop: bool) -> None:
    generator = np.random.default_rng(1)
    for nodes in SIZES:
        angles = generator.permutation(nodes) / (2 * nodes)  # cosines of all pairs differ
        x = np.stack((np.cos(angles), np.sin(angles)), 1) * generator.uniform(1, 100, (nodes, 1))
        apart = np.abs(angles[:, None] - angles[None]).round(9)
        everything = np.ones((1, nodes), dtype=bool)
        for k in numbers_of_neighbors(nodes, loop):
            found = knn_graph(torch.tensor(x)[None], k, metric="cosine", loop=loop, backend="numba")
            chosen = np.take_along_axis(apart, np.maximum(found[0].numpy(), 0), 1)
            lists = expected_neighbors(apart[None], everything, k, loop)[0]
            assert np.array_equal(found[0].numpy() < 0, lists < 0)
            assert np.array_equal(chosen, np.take_along_axis(apart, np.maximum(lists, 0), 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 7, 16, 63, 64, 129, 300])
def test_maxima_and_their_gradients(channels: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for nodes, k in ((1, 1), (5, 2), (12, 4), (300, 9)):
        x = torch.randint(-9, 10, (2, nodes, channels)).to(dtype)  # many equal values
        neighbors = torch.randint(-1, nodes, (2, nodes, k))
        results = []
        for backend in ("numba", "definition"):
            leaf = x.clone().requires_grad_()
            out = neighbor_aggregate(leaf, neighbors, "max", backend=backend)  # type: ignore[arg-type]
            out.backward(torch.ones_like(out))
            with torch.no_grad():
                again = neighbor_aggregate(leaf, neighbors, "max", backend=backend)  # type: ignore[arg-type]
            assert torch.equal(again, out)
            assert leaf.grad is not None
            results.append((out, leaf.grad))
        assert all(map(torch.equal, *results))


def test_maxima_keep_nan_in_its_channel() -> None:
    x = torch.zeros(1, 12, 70)
    x[0, 3, 5], x[0, 4, 66], x[0, 5, 69] = torch.nan, torch.inf, -torch.inf

    def relative(backend: str) -> Tensor:
        return knn_max_relative(x, 11, backend=backend)[0]  # type: ignore[arg-type]

    found = relative("numba")
    assert torch.equal(found.isnan(), relative("definition").isnan())
    assert found.isnan().any(1)[0].nonzero().flatten().tolist() == [5, 66]
    assert torch.equal(found.nan_to_num(), relative("definition").nan_to_num())
