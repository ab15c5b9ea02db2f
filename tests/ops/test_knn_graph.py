"""knn_graph: the neighbors of the oracle, and transforms that keep them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.strategies_knn import METRICS, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.distances import pairwise_scores, pairwise_scores_reference
from aurel.ops.knn_graph import knn_graph, knn_graph_reference
from aurel.ops.selection import select_nearest_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def of_case(case: Case, x: Tensor | None = None) -> Tensor:
    x = case.x if x is None else x
    return knn_graph(x, case.k, case.metric, loop=case.loop, mask=case.mask)


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(DTYPES))
def test_equals_a_stable_sort_of_exact_distances(case: Case, dtype: torch.dtype) -> None:
    mask = None if case.mask is None else case.mask.numpy()
    want = oracle.neighbors(case.x.numpy(), case.k, case.metric, case.loop, mask)
    got = of_case(case, case.x.to(dtype))
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got.numpy(), want)
    reference = knn_graph_reference(
        case.x.to(dtype), case.k, case.metric, loop=case.loop, mask=case.mask
    )
    np.testing.assert_array_equal(reference.numpy(), want)


@settings(max_examples=30, deadline=None)
@given(cases(integers=False))
def test_permuted_nodes_have_permuted_neighbors(case: Case) -> None:
    order = torch.from_numpy(case.rng.permutation(case.x.shape[1]))
    place = torch.argsort(order)
    moved = Case(case.x[:, order], case.k, case.metric, case.loop, None, case.rng)
    if case.mask is not None:
        moved.mask = case.mask[:, order]
    before = of_case(case)[:, order]
    assert torch.equal(of_case(moved), torch.where(before < 0, -1, place[before.clamp_min(0)]))


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([torch.float32, torch.float64]))
def test_absent_nodes_have_no_effect(case: Case, dtype: torch.dtype) -> None:
    mask = torch.from_numpy(case.rng.random(case.x.shape[:2]) < 0.6)
    garbage = case.x.to(dtype).masked_fill(~mask[..., None], torch.nan)
    got = knn_graph(garbage, case.k, case.metric, loop=case.loop, mask=mask)
    assert (got[~mask] == -1).all()
    for features, present, lists in zip(case.x.to(dtype), mask, got, strict=True):
        index = present.nonzero()[:, 0]
        candidates = len(index) - (not case.loop)
        k = min(case.k, candidates)
        assert (lists[present][:, max(k, 0) :] == -1).all()
        if k > 0:
            alone = knn_graph(features[None, index], k, case.metric, loop=case.loop)[0]
            assert torch.equal(lists[present][:, :k], index[alone])


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([0.25, 2.0, 64.0]), st.integers(-100, 100))
def test_transforms_that_keep_the_order_of_distances_keep_neighbors(
    case: Case, scale: float, shift: int
) -> None:
    x, want = case.x.float(), of_case(case)
    assert torch.equal(of_case(case, x * scale), want)
    if case.metric in ("l2", "l1"):
        assert torch.equal(of_case(case, x + shift), want)
    if case.metric == "cosine":
        lengths = torch.from_numpy(2.0 ** case.rng.integers(-3, 4, (*x.shape[:2], 1))).float()
        assert torch.equal(of_case(case, x * lengths), want)


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_tie_to_the_lowest_index(metric: str) -> None:
    rng = np.random.default_rng(0)
    for nodes in (3, 12, 27, 41):
        original = rng.integers(0, (nodes + 1) // 2, nodes)
        x = torch.randn(2, nodes, 33)[:, original] + 5
        lists = knn_graph(x, nodes, metric).numpy()
        for row in lists.reshape(-1, nodes):
            for copies in (row[original[row] == o] for o in set(original)):
                assert (np.diff(copies) > 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_node_with_nan_is_chosen_last_and_changes_no_other_row(metric: str, value: float) -> None:
    x = torch.randn(3, 9, 6) + 50
    want = torch.from_numpy(oracle.neighbors(np.delete(x.numpy(), 4, axis=1), 8, metric))
    x[:, 4, 1:3] = torch.tensor([value, torch.nan])
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    lists = knn_graph(x, 9, metric)
    assert torch.equal(lists.sort(dim=2).values, torch.arange(9).expand(3, 9, 9))
    assert (lists[:, others, -1] == 4).all()
    assert torch.equal(lists[:, others, :8], torch.tensor(others)[want])
    assert torch.equal(lists[:, 4], torch.arange(9).expand(3, 9))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("function", [knn_graph, knn_graph_reference])
def test_infinity_is_the_farthest_distance_or_the_largest_product(function, metric: str) -> None:
    x, others = torch.rand(3, 9, 6) + 1, [0, 1, 3, 5, 6, 7, 8]
    x[:, 4, 1:3] = torch.inf
    lists = function(x, 9, metric)
    assert (lists[:, others, 0 if metric == "dot" else -1] == 4).all()
    assert torch.equal(lists[:, 4], torch.arange(9).expand(3, 9))
    x[:, 2] = torch.nan
    lists = function(x, 9, metric)
    last = [2] if metric == "dot" else [2, 4]
    assert (lists[:, others, -len(last) :] == torch.tensor(last)).all()


def test_cosines_near_zero_are_distinguished() -> None:
    x = torch.tensor([[[1.0, 0.0], [1e-5, 1.0], [2e-5, 1.0]]])
    assert knn_graph(x, 3, "cosine")[0, 0].tolist() == [0, 2, 1]


@pytest.mark.parametrize("nodes", [1, 2, 3, 9])
def test_large_batches_of_small_graphs(nodes: int) -> None:
    x = torch.randn(20, nodes, 3, dtype=torch.float64)
    for metric in METRICS:
        assert torch.equal(knn_graph(x, nodes, metric), knn_graph_reference(x, nodes, metric))


def test_all_nodes_are_nan_or_zero() -> None:
    for x in (torch.full((2, 5, 3), torch.nan), torch.zeros(2, 5, 3)):
        for metric in METRICS:
            assert torch.equal(knn_graph(x, 3, metric), torch.arange(3).expand(2, 5, 3))


@pytest.mark.parametrize("zeros", [0, 3])
def test_a_large_common_offset_does_not_cancel(zeros: int) -> None:
    x = torch.randn(4, 41, 256) + 300
    x[:, 20 : 20 + zeros] = 0
    exact = torch.from_numpy(np.stack([oracle.scores(sample, "l2") for sample in x.numpy()]))
    chosen = exact.gather(2, knn_graph(x, 9))
    torch.testing.assert_close(chosen, exact.sort(dim=2).values[..., :9], rtol=5e-4, atol=0)


@pytest.mark.parametrize("offset", [1e4, 1e5])
def test_a_huge_common_offset_costs_no_more_than_float32_does(offset: float) -> None:
    x = torch.randn(4, 41, 256) + offset
    x[:, :, ::2] *= -1
    exact = torch.from_numpy(np.stack([oracle.scores(sample, "l2") for sample in x.numpy()]))
    chosen = exact.gather(2, knn_graph(x, 9))
    torch.testing.assert_close(chosen, exact.sort(dim=2).values[..., :9], rtol=1e-5, atol=0)


def test_autocast_changes_no_neighbor() -> None:
    x = torch.randn(8, 18, 64)
    for metric in METRICS:
        with torch.autocast("cpu", torch.bfloat16):
            got = knn_graph(x, 4, metric)
        assert torch.equal(got, knn_graph(x, 4, metric))


COARSE = """
import torch
from aurel.ops.distances import pairwise_scores
from aurel.ops.knn_graph import knn_graph
x = torch.randn(2, 18, 64)
want = knn_graph(x, 4)
assert pairwise_scores(x, "l2").dtype == torch.float32
torch.backends.fp32_precision = "tf32"
scores = pairwise_scores(x, "l2")
assert scores.dtype == torch.float32
torch.testing.assert_close(scores, pairwise_scores(x.double(), "l2").float(), rtol=1e-6, atol=1e-4)
assert torch.equal(knn_graph(x, 4), want)
"""


def test_the_precision_of_matrix_products_changes_no_neighbor() -> None:
    """In a process of its own, since torch cannot fully restore the setting."""
    subprocess.run([sys.executable, "-c", COARSE], check=True)


def test_float32_agrees_with_the_oracle_up_to_rounding() -> None:
    x = torch.randn(4, 27, 100)
    for metric in METRICS:
        exact = torch.from_numpy(np.stack([oracle.scores(s, metric) for s in x.numpy()]))
        chosen = exact.gather(2, knn_graph(x, 9, metric))
        torch.testing.assert_close(chosen, exact.sort(dim=2).values[..., :9], rtol=1e-4, atol=1e-3)


def test_scores_order_rows_as_the_definition_does() -> None:
    x = torch.randn(2, 13, 7, dtype=torch.float64)
    for metric in METRICS:
        got = pairwise_scores(x, metric).argsort(dim=2)
        assert torch.equal(got, pairwise_scores_reference(x, metric).argsort(dim=2))


def test_selection_orders_signed_scores() -> None:
    row = [3.0, -2.0, 0.0, -0.0, torch.nan, -torch.inf, -2.0, torch.inf, 1e-45, 3.4e38]
    scores = torch.tensor([row, row[::-1]] * 40)
    first = [5, 1, 6, 2, 3, 8, 0, 9, 7, -1]
    last = [4, 3, 8, 6, 7, 1, 9, 0, 2, -1]
    for dtype in (torch.float32, torch.float64):
        got = select_nearest_reference(scores.to(dtype), 10)
        assert got.tolist() == [first, last] * 40
        assert (
            select_nearest_reference(scores.to(dtype), 3, 2).tolist()
            == [
                first[:6:2],
                last[:6:2],
            ]
            * 40
        )


def test_shapes_and_layouts() -> None:
    assert knn_graph(torch.randn(0, 5, 3), 2).shape == (0, 5, 2)
    assert knn_graph(torch.randn(2, 1, 3), 1).tolist() == [[[0]], [[0]]]
    x = torch.randn(3, 8, 12)
    mask = torch.rand(3, 8) < 0.7
    for metric in METRICS:
        want = knn_graph(x, 3, metric, mask=mask)
        strided = x.transpose(0, 2).contiguous().transpose(0, 2)
        assert torch.equal(knn_graph(strided, 3, metric, mask=mask), want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 6}, r"k must be in 1\.\.5 \(the number of nodes\), got 6"),
        ({"k": 0}, r"k must be in 1\.\.5"),
        ({"k": 5, "loop": False}, r"k must be in 1\.\.4 \(the 5 nodes less the node itself\)"),
        ({"metric": "euclid"}, "metric must be one of l2, l1, cosine, dot, got 'euclid'"),
        ({"x": torch.zeros(5, 3)}, r"x must have shape \(B, N, C\), got \(5, 3\)"),
        ({"x": torch.zeros(2, 5, 3, dtype=torch.int64)}, "x must be floating point"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask must have shape \(B=2, N=5\)"),
        ({"mask": torch.ones(2, 5)}, "mask must be bool"),
        ({"backend": "cuda"}, "backend must be one of"),
        (
            {"backend": "pyg"},
            "^knn_graph: backend='pyg' cannot serve this call: serves ragged graphs",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knn_graph(**{"x": torch.zeros(2, 5, 3), "k": 2} | arguments)
