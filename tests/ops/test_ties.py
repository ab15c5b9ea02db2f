"""Equal nodes: ties go to the lowest index, and equal rows get equal outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.choosing_ops import CHOOSERS, METRICS
from helpers.every_backend import every_backend
from torch import Tensor

from aurel import ops

every_metric = pytest.mark.parametrize("metric", METRICS)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def graphs_with_duplicates(seeds: int) -> Iterator[tuple[Tensor, np.ndarray, int]]:
    """Yield nodes, (1, N, C), the number of the node that each one copies, and K."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        nodes, channels = int(rng.integers(1, 71)), int(rng.integers(1, 131))
        original = rng.integers(0, (nodes + 2) // 3, nodes)
        offset = rng.choice([0.0, 5.0, 100.0])
        x = rng.normal(size=(nodes, channels)).astype(np.float32)[original] + np.float32(offset)
        yield torch.from_numpy(x)[None], original, int(rng.integers(1, nodes + 1))


def assert_lowest_first(lists: Tensor, original: np.ndarray) -> None:
    """Assert that copies of one node are listed by index, without gaps."""
    for row in lists[0].numpy():
        for node in {*original[row]}:
            copies = row[original[row] == node]
            assert (copies == np.flatnonzero(original == node)[: len(copies)]).all()


@every_backend
@every_metric
def test_the_layout_of_nodes_changes_nothing(metric: str, backend: str) -> None:
    """Feature maps have their channels first: `feature_map.flatten(2).mT` is strided."""
    for x, original, k in graphs_with_duplicates(40):
        strided = x.mT.contiguous().mT
        lists = ops.knn_graph(strided, k, metric, backend=backend)  # type: ignore[arg-type]
        assert_lowest_first(lists, original)
        assert torch.equal(lists, ops.knn_graph(x, k, metric, backend=backend))  # type: ignore[arg-type]


@every_backend
@every_metric
@pytest.mark.parametrize("name", CHOOSERS)
def test_duplicates_tie_to_the_lowest_index(
    name: str, metric: str, backend: str, threads: int
) -> None:
    for x, original, k in graphs_with_duplicates(10):
        lists = CHOOSERS[name](x, k, metric, backend=backend)
        assert_lowest_first(lists, original)
        first = np.array([np.flatnonzero(original == node)[0] for node in original])
        assert torch.equal(lists, lists[:, first])  # equal nodes have equal neighbors


@every_backend
@every_metric
def test_all_nodes_are_equal(metric: str, backend: str) -> None:
    """Also for 33 channels, where products of matrices give copies different scores."""
    for seed in range(40):
        torch.manual_seed(seed)
        channels, nodes = 1 + seed % 40, 2 + seed % 9
        for copies in (torch.randn(channels) + 5, torch.randn(33) + 5):
            x = copies.expand(2, nodes, -1).contiguous()
            lists = ops.knn_graph(x, nodes, metric, backend=backend)
            assert torch.equal(lists, torch.arange(nodes).expand(2, nodes, nodes))


@every_backend
@every_metric
def test_among_many_graphs_of_a_batch(metric: str, backend: str, threads: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 7, 19)[:, [0, 1, 0, 2, 1, 0, 2]].expand(9, 7, 19) * torch.ones(9, 1, 1)
    lists = ops.knn_graph(x, 7, metric, backend=backend)
    assert torch.equal(lists, lists[:1].expand(9, 7, 7))
    for row in lists[0].tolist():
        assert [node for node in row if node in (0, 2, 5)] == [0, 2, 5]
        assert [node for node in row if node in (1, 4)] == [1, 4]


@every_backend
@pytest.mark.parametrize("own", [True, False], ids=["own nodes", "sources"])
@every_metric
def test_equal_rows_have_equal_outputs(metric: str, own: bool, backend: str, threads: int) -> None:
    for x, original, k in graphs_with_duplicates(8):
        first = np.array([np.flatnonzero(original == node)[0] for node in original])
        sources = None if own else torch.cat((x, x.flip(1)), 1)
        leaf = x.clone().requires_grad_()
        out, lists = ops.knn_max_relative(leaf, k, metric, sources=sources, backend=backend)
        assert torch.equal(out, out[:, first]) and torch.equal(lists, lists[:, first])
        alone, _ = ops.knn_max_relative(x, k, metric, sources=sources, backend=backend)
        assert torch.equal(out, alone)  # without winners
        again = ops.knn_max_relative(leaf, k, metric, sources=sources, backend=backend)[0]
        grads = [torch.autograd.grad(each.sum(), leaf)[0] for each in (out, again)]
        assert torch.equal(*grads)


@every_backend
@every_metric
def test_sources_and_bias_tie_to_the_lowest_index(metric: str, backend: str) -> None:
    for x, original, k in graphs_with_duplicates(12):
        nodes = torch.randn(1, 6, x.shape[2])
        bias = torch.randn(6, 1).expand(6, x.shape[1])  # the same for all sources
        for shift in (None, bias):
            lists = ops.knn_graph(nodes, k, metric, sources=x, bias=shift, backend=backend)
            assert_lowest_first(lists, original)


@every_backend
@pytest.mark.parametrize("metric", ["l2", "l1", "dot", "cosine"])
def test_both_zeros_are_one_number(metric: str, backend: str) -> None:
    x = torch.tensor([[[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [-0.0, 1.0]]])
    lists = ops.knn_graph(x, 4, metric, backend=backend)
    assert torch.equal(lists, torch.arange(4).expand(1, 4, 4))
    flat = torch.tensor([[[0.0], [-0.0], [0.0]]])
    assert torch.equal(
        ops.knn_graph(flat, 3, metric, backend=backend), torch.arange(3).expand(1, 3, 3)
    )


@every_backend
def test_parallel_integers_have_equal_cosines(backend: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        directions = rng.integers(-4, 5, (5, 3))
        directions[~directions.any(1)] = 1
        original = rng.integers(0, 5, 20)
        # Powers of two: a multiple by 3 rounds p |p| / q.
        lengths = 2.0 ** rng.integers(-20, 21, (20, 1))
        x = torch.from_numpy(directions[original] * lengths).float()[None]
        lists = ops.knn_graph(x, 20, "cosine", backend=backend)[0].numpy()
        for row in lists:
            for node in {*original}:
                assert (np.diff(row[original[row] == node]) > 0).all()
