"""Kernels that gather and reduce over neighbor lists, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.plain import DEVICE, DTYPES, QUIET, aggregate, aggregate_backward, array, integers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.kernels.triton import neighbor_aggregate as kernels
from aurel.kernels.triton import reversed_edges, scatter

pytestmark = QUIET

REDUCTIONS = ("max", "mean", "sum")
SLACK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def random_lists(
    batch: int, nodes: int, k: int, sources: int, seed: int = 0, empty: float = 0.2
) -> Tensor:
    """Return lists with repetitions and with indices out of range."""
    generator = torch.Generator().manual_seed(seed)
    lists = torch.randint(0, sources, (batch, nodes, k), generator=generator)
    outside = torch.tensor([-1, sources, 2**40, -(2**40)])
    outside = outside[torch.randint(0, 4, lists.shape, generator=generator)]
    return lists.where(torch.rand(lists.shape, generator=generator) >= empty, outside).to(DEVICE)


def check(x: Tensor, lists: Tensor, reduce: str, seed: int = 0) -> None:
    """Compare values and gradients with the definition."""
    want, want_winner = aggregate(x, lists, reduce)
    out, winner = kernels.forward(x, lists, reduce, True)
    slack = SLACK[x.dtype]
    assert out.dtype == x.dtype and out.is_contiguous()
    np.testing.assert_allclose(array(out), want, rtol=slack, atol=slack)
    if reduce == "max":
        assert np.array_equal(array(winner), want_winner)
    grad = integers(*out.shape, dtype=x.dtype, seed=seed + 1)
    nodes = x.shape[1]
    grad_x = kernels.backward(grad, lists, winner, nodes, reduce)
    assert grad_x.dtype == x.dtype and grad_x.is_contiguous()
    want = aggregate_backward(grad, lists, want_winner, nodes, reduce)
    np.testing.assert_allclose(array(grad_x), want, rtol=slack, atol=slack)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 70)),
    st.integers(1, 20),
    st.integers(1, 7),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.sampled_from((0, reversed_edges.MOST_EDGES)),
)
def test_equals_the_definition(
    seed: int,
    shape: tuple[int, int, int],
    nodes: int,
    k: int,
    reduce: str,
    dtype: torch.dtype,
    transposed: bool,
    most_edges: int,
) -> None:
    x = integers(*shape, dtype=dtype, seed=seed)
    lists = random_lists(shape[0], nodes, k, shape[1], seed)
    if transposed:
        x, lists = x.mT.contiguous().mT, lists.mT.contiguous().mT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reversed_edges, "MOST_EDGES", most_edges)  # 0: torch sorts
        if most_edges == 0:  # maxima, too
            patch.setattr(scatter, "WHOLE_GRAPH", 0)
        check(x, lists, reduce, seed)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_more_nodes_than_a_program_sorts(reduce: str) -> None:
    check(integers(1, 70, 5), random_lists(1, 66, 3, 70), reduce)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_few_edges_of_many_targets_are_sorted_by_a_program(reduce: str) -> None:
    check(integers(2, 20, 5), random_lists(2, 100, 9, 20), reduce)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_64_neighbors(reduce: str) -> None:
    check(integers(1, 4, 3), random_lists(1, 4, 64, 4), reduce)


def test_a_node_with_more_edges_than_one_step() -> None:
    lists = torch.full((1, 30, 2), 3, device=DEVICE)
    for reduce in REDUCTIONS:
        check(integers(1, 5, 3), lists, reduce)


@pytest.mark.parametrize("sources", [256, 257, 32_768])
def test_the_winner_has_the_smallest_dtype(sources: int) -> None:
    x = torch.arange(sources, dtype=torch.float32, device=DEVICE).view(1, -1, 1)
    lists = torch.tensor([[[0, sources - 1], [1, -1]]], device=DEVICE)
    winner = kernels.forward(x, lists, "max", True)[1]
    kinds = {256: torch.uint8, 257: torch.int16, 32_768: torch.int32}
    assert winner.dtype == kinds[sources] and winner.flatten().tolist() == [sources - 1, 1]
    for reduce, keep in (("max", False), ("mean", True)):
        empty = kernels.forward(x, lists, reduce, keep)[1]
        assert empty.shape == (0,) and empty.dtype == kinds[sources]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_infinities_and_nan_reach_the_rows_that_list_them(reduce: str) -> None:
    x = integers(1, 6, 4)
    x[0, 3, 1], x[0, 2, 2], x[0, 4, 3], x[0, 5] = torch.nan, torch.inf, -torch.inf, -torch.inf
    lists = torch.tensor([[[0, 1], [3, 2], [2, 4], [-1, -1], [4, 3], [-1, 5], [5, 4]]])
    want, want_winner = aggregate(x, lists, reduce)
    out, winner = kernels.forward(x, lists.to(DEVICE), reduce, True)
    np.testing.assert_allclose(array(out), want, rtol=1e-6)
    if reduce == "max":
        assert np.array_equal(array(winner), want_winner)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_gradient_of_nan_reaches_the_listed_nodes_alone(reduce: str) -> None:
    x = integers(1, 5, 3)
    lists = torch.tensor([[[0, 1], [3, 2], [2, -1], [-1, -1], [4, 3]]], device=DEVICE)
    winner = kernels.forward(x, lists, reduce, True)[1]
    grad = torch.ones_like(x)
    grad[0, 2, 0], grad[0, 3, 1] = torch.nan, torch.nan
    reached = torch.zeros(5, 3, dtype=torch.bool, device=DEVICE)
    reached[2, 0] = True
    grad_x = kernels.backward(grad, lists, winner, 5, reduce)
    assert torch.equal(grad_x[0].isnan(), reached)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_empty_sizes(reduce: str) -> None:
    for batch, nodes, channels in ((0, 5, 3), (1, 0, 3), (1, 5, 0)):
        x = integers(batch, 5, channels)
        lists = random_lists(batch, nodes, 2, 5)
        out, winner = kernels.forward(x, lists, reduce, True)
        assert out.shape == (batch, nodes, channels)
        grad_x = kernels.backward(out, lists, winner, 5, reduce)
        assert grad_x.shape == x.shape and (grad_x == 0).all()
