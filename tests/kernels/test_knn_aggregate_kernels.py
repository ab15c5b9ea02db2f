"""Kernels that choose neighbors and reduce over them, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.plain import (
    DEVICE,
    DTYPES,
    METRICS,
    QUIET,
    Case,
    aggregate,
    aggregate_backward,
    all_ties,
    array,
    case,
    cases,
    integers,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.kernels.triton import knn_graph, topk_aggregate
from aurel.kernels.triton import knn_max_relative as kernels

pytestmark = QUIET

TIES = ("exact", "all")
SLACK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def check_max_relative(choice: Case) -> None:
    """Compare with the definition; with integers every number but a sum of gradients is exact."""
    x, own = choice.x, choice.sources is None
    sources = x if own else choice.sources
    lists = choice.neighbors()
    nonempty = (lists >= 0).any(2, keepdim=True).numpy()
    best, want_winner = aggregate(sources, lists, "max")
    out, neighbors, winner = kernels.forward(*choice.arguments(), keep_winner=True)
    assert torch.equal(neighbors.cpu(), lists) and out.dtype == x.dtype
    assert np.array_equal(array(out), np.where(nonempty, best - array(x), 0))
    assert winner.dtype == torch.uint8 and np.array_equal(array(winner), want_winner)
    grad = integers(*x.shape, dtype=x.dtype, seed=7)
    nodes = sources.shape[1]
    grad_x, grad_sources = kernels.backward(grad, neighbors, winner, nodes, own)
    want_x = np.where(nonempty, -array(grad), 0)
    want_sources = aggregate_backward(grad, lists, want_winner, nodes, "max")
    assert grad_x.dtype == grad_sources.dtype == x.dtype
    if own:
        assert grad_sources.shape == (0,)
        assert np.array_equal(array(grad_x), want_x + want_sources)
    else:
        assert np.array_equal(array(grad_x), want_x)
        assert np.array_equal(array(grad_sources), want_sources)


def check_topk(
    x: Tensor, values: Tensor, k: int, metric: str, ties: str, mask: Tensor | None = None
) -> None:
    choice = case(x, k, metric, mask=mask)
    lists = choice.neighbors()
    out, neighbors, weights = topk_aggregate.forward(x, values, mask, k, metric, ties)
    assert torch.equal(neighbors.cpu(), lists) and out.dtype == values.dtype
    grad = integers(*values.shape, dtype=values.dtype, seed=7)
    grad_values = topk_aggregate.backward(grad, neighbors, weights, ties)
    if ties == "exact":
        assert weights.shape == (0,) and weights.dtype == torch.float32
        want, winner = aggregate(values, lists, "mean")
        want_grad = aggregate_backward(grad, lists, winner, x.shape[1], "mean")
    else:
        want_weights = all_ties(x, values, k, metric, mask)
        np.testing.assert_allclose(array(weights), want_weights, rtol=1e-6)
        want = want_weights @ array(values)
        want_grad = want_weights.swapaxes(1, 2) @ array(grad)
    slack = SLACK[values.dtype]
    np.testing.assert_allclose(array(out), want, rtol=slack, atol=slack)
    np.testing.assert_allclose(array(grad_values), want_grad, rtol=slack, atol=slack)


@settings(max_examples=15, deadline=None)
@given(cases(most_nodes=16))
def test_max_relative_equals_the_definition(choice: Case) -> None:
    check_max_relative(choice)


@settings(max_examples=15, deadline=None)
@given(cases(most_nodes=16), st.sampled_from(TIES), st.sampled_from(DTYPES), st.integers(1, 70))
def test_topk_equals_the_definition(
    choice: Case, ties: str, dtype: torch.dtype, channels: int
) -> None:
    values = integers(*choice.x.shape[:2], channels, dtype=dtype, seed=choice.k)
    k = min(choice.k, choice.x.shape[1])
    check_topk(choice.x, values, k, choice.metric, ties, choice.mask)


@pytest.mark.parametrize("nodes", [1, 41])
def test_whole_graphs(nodes: int) -> None:
    check_max_relative(case(integers(1, nodes, 6), min(nodes, 9)))
    check_topk(integers(1, nodes, 6), integers(1, nodes, 5), min(nodes, 4), "dot", "all")


def test_channels_beyond_a_strip() -> None:
    check_max_relative(case(integers(1, 5, 144), 3))
    check_topk(integers(1, 5, 3), integers(1, 5, 130), 3, "dot", "all")


def test_several_tiles() -> None:
    check_max_relative(case(integers(1, 5, 6), 3, sources=integers(1, 67, 6, seed=1)))
    check_topk(integers(1, 67, 6), integers(1, 67, 5), 3, "dot", "exact")


@pytest.mark.parametrize("ties", TIES)
def test_fewer_nodes_than_k(ties: str) -> None:
    mask = torch.tensor([[False, True, False, False, True], [False] * 5], device=DEVICE)
    check_topk(integers(2, 5, 3), integers(2, 5, 4), 4, "l2", ties, mask)


def test_all_ties_of_equal_nodes_are_kept() -> None:
    x, values = torch.ones(1, 5, 3, device=DEVICE), integers(1, 5, 4)
    out, lists, weights = topk_aggregate.forward(x, values, None, 2, "dot", "all")
    torch.testing.assert_close(out, values.mean(1, keepdim=True).expand_as(out))
    torch.testing.assert_close(weights, torch.full_like(weights, 0.2))
    assert (lists == torch.tensor([0, 1], device=DEVICE)).all()


@pytest.mark.parametrize("ties", TIES)
def test_a_value_of_nan_reaches_the_rows_that_list_it(ties: str) -> None:
    x = torch.eye(4, device=DEVICE)[None] + torch.eye(4, device=DEVICE).roll(1, 0)[None]
    values = integers(1, 4, 3)
    values[0, 1, 2] = torch.nan
    out, lists, weights = topk_aggregate.forward(x, values, None, 2, "dot", ties)
    reached = (lists == 1).any(2) if ties == "exact" else (x @ x.mT > 0)[:, :, 1]
    assert 0 < reached.sum() < 4
    assert torch.equal(out.isnan()[..., 2], reached) and not out[..., :2].isnan().any()

    grad = torch.ones_like(out)
    grad[0, 0, 0] = torch.nan
    grad_values = topk_aggregate.backward(grad, lists, weights, ties)
    listed = torch.zeros(4, dtype=torch.bool, device=DEVICE)
    listed[lists[0, 0] if ties == "exact" else (x @ x.mT > 0)[0, 0].nonzero().flatten()] = True
    assert torch.equal(grad_values[0, :, 0].isnan(), listed)


def test_an_absent_node_has_no_effect_and_gets_zeros() -> None:
    mask = torch.tensor([[True, False, True, True, False]], device=DEVICE)
    x = integers(1, 5, 3).masked_fill(~mask[..., None], torch.nan)
    out, lists, winner = kernels.forward(*case(x, 2, mask=mask).arguments(), keep_winner=True)
    grad = kernels.backward(torch.ones_like(out), lists, winner, 5, True)[0]
    results = [(out, grad)]
    for ties in TIES:
        out, lists, weights = topk_aggregate.forward(x, x, mask, 2, "dot", ties)
        results.append((out, topk_aggregate.backward(torch.ones_like(out), lists, weights, ties)))
    for out, grad in results:
        assert (out[~mask] == 0).all() and (grad[~mask] == 0).all()
        assert out.isfinite().all() and grad.isfinite().all()


def test_the_winner_is_kept_for_gradients_only() -> None:
    choice = case(integers(2, 5, 3), 3)
    assert kernels.forward(*choice.arguments(), keep_winner=False)[2].shape == (0,)
    empty = case(integers(0, 5, 3), 3)
    out, lists, winner = kernels.forward(*empty.arguments(), keep_winner=True)
    assert winner.shape == out.shape == (0, 5, 3) and lists.shape == (0, 5, 3)


@pytest.mark.parametrize("metric", METRICS)
def test_fused_and_single_kernels_give_equal_neighbors(metric: str) -> None:
    choice = case(torch.randn(2, 12, 20, device=DEVICE), 4, metric)
    lists = knn_graph.forward(*choice.arguments())
    assert torch.equal(kernels.forward(*choice.arguments(), keep_winner=True)[1], lists)
