"""knn kernels on small graphs: exact neighbors, ties included, by any option."""

from __future__ import annotations

import pytest
import torch
from helpers.plain import (
    DEVICE,
    DTYPES,
    METRICS,
    QUIET,
    Case,
    assert_nearest,
    case,
    cases,
    integers,
)
from hypothesis import given, settings

from aurel.kernels.triton import knn_graph

pytestmark = QUIET


def check(choice: Case) -> None:
    got = knn_graph.forward(*choice.arguments())
    assert got.dtype == torch.int64 and got.device == choice.x.device and got.is_contiguous()
    assert torch.equal(got.cpu(), choice.neighbors())


@settings(max_examples=40, deadline=None)
@given(cases())
def test_equals_the_definition(choice: Case) -> None:
    check(choice)


@pytest.mark.parametrize("nodes", [1, 2, 12, 17, 41, 64])
def test_k_from_1_to_n(nodes: int) -> None:
    for k in {1, nodes}:
        check(case(integers(1, nodes, 5), k))


@pytest.mark.parametrize("metric", METRICS)
def test_sources_of_another_number(metric: str) -> None:
    x, few, many = integers(2, 23, 7), integers(2, 5, 7, seed=1), integers(2, 40, 7, seed=2)
    check(case(x, 5, metric, sources=few))
    check(case(few, 9, metric, sources=many, dilation=2))


@pytest.mark.parametrize("metric", METRICS)
def test_too_few_nodes_leave_empty_slots(metric: str) -> None:
    mask = torch.zeros(2, 6, dtype=torch.bool, device=DEVICE)
    mask[0, [1, 4]] = True
    got = knn_graph.forward(*case(integers(2, 6, 4), 3, metric, loop=False, mask=mask).arguments())
    assert got[0, 1].tolist() == [4, -1, -1] and got[0, 4].tolist() == [1, -1, -1]
    assert (got[1] == -1).all() and (got[0, [0, 2, 3, 5]] == -1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_node_that_is_not_finite_comes_last(metric: str) -> None:
    x = integers(3, 8, 5)
    x[0, 2, 3], x[1, 4, 0], x[1, 5], x[2, 6, 1] = torch.nan, torch.inf, torch.nan, -torch.inf
    check(case(x, 8, metric))
    valid = [i for i in range(8) if i != 2]
    assert (knn_graph.forward(*case(x, 8, metric).arguments())[0, valid, -1] == 2).all()


@pytest.mark.parametrize("metric", METRICS)
def test_features_of_an_absent_node_have_no_effect(metric: str) -> None:
    x = integers(2, 9, 5)
    mask = torch.ones(2, 9, dtype=torch.bool, device=DEVICE)
    mask[:, ::3] = False
    with_nan = x.masked_fill(~mask[..., None], torch.nan)
    check(case(with_nan, 4, metric, mask=mask))


@pytest.mark.parametrize("metric", METRICS)
def test_infinite_and_nan_biases(metric: str) -> None:
    bias = torch.zeros(6, 6, device=DEVICE)
    bias[0, 1], bias[1, 2], bias[2, 3] = -torch.inf, torch.inf, torch.nan
    x = integers(1, 6, 4)
    x[0, 5, 0] = torch.nan
    check(case(x, 6, metric, bias=bias))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_duplicates_tie_to_the_lowest_index(metric: str, dtype: torch.dtype) -> None:
    x = torch.randn(1, 5, 24, device=DEVICE).to(dtype).repeat(1, 3, 1)
    got = knn_graph.forward(*case(x, 15, metric).arguments())
    order = got.view(1, 15, 5, 3)
    assert (order % 5 == order[..., :1] % 5).all()
    assert (order.diff(dim=-1) == 5).all()


def test_signed_zeros_tie() -> None:
    x = integers(1, 8, 4)
    x[0, 1], x[0, 2] = -0.0, 0.0
    for metric in METRICS:
        check(case(x, 8, metric))


@pytest.mark.parametrize("distance", [100.0, 1000.0])
def test_two_clusters_far_apart(distance: float) -> None:
    x = torch.randn(1, 40, 33, device=DEVICE)
    x[:, 20:] += distance
    choice = case(x, 9)
    assert_nearest(knn_graph.forward(*choice.arguments()), choice)


def test_one_outlier_far_from_the_origin() -> None:
    x = 1000 + torch.randn(1, 20, 33, device=DEVICE)
    x[:, 0] = 0
    choice = case(x, 5)
    assert_nearest(knn_graph.forward(*choice.arguments()), choice)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_cosines_of_nodes_of_any_norm(size: float) -> None:
    x = torch.randn(1, 12, 16, dtype=torch.float64, device=DEVICE).mul(size).float()
    choice = case(x, 4, "cosine")
    assert_nearest(knn_graph.forward(*choice.arguments()), choice, rtol=1e-4)
    mixed = case(integers(1, 12, 5) * torch.tensor([1.0, 2.0**90, 2.0**-90]).repeat(4)[:, None], 12)
    mixed.metric = "cosine"
    check(mixed)


def test_cosine_distance_with_a_bias() -> None:
    bias = torch.randn(2, 12, 12, device=DEVICE)
    choice = case(torch.randn(2, 12, 16, device=DEVICE) * 1e20, 4, "cosine", bias=bias)
    got = knn_graph.forward(*choice.arguments())
    assert torch.equal(got.cpu(), choice.neighbors())


def test_empty_batch_and_no_channels() -> None:
    assert knn_graph.forward(*case(integers(0, 5, 3), 2).arguments()).shape == (0, 5, 2)
    for metric in METRICS:
        check(case(integers(1, 5, 0), 3, metric))
