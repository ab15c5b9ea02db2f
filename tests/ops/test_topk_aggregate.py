"""topk_aggregate: a mean over exactly K, or the authors' normalized adjacency with all ties."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.every_backend import every_backend
from helpers.strategies_knn import METRICS, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.topk_aggregate import TIES, topk_aggregate, topk_aggregate_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def values_for(case: Case) -> Tensor:
    return torch.from_numpy(case.rng.integers(-4, 5, (*case.x.shape[:2], 6))).double()


@every_backend
@settings(max_examples=80, deadline=None)
@given(case=cases(), ties=st.sampled_from(TIES), dtype=st.sampled_from(DTYPES))
def test_equals_the_oracle(backend: str, case: Case, ties: str, dtype: torch.dtype) -> None:
    values = values_for(case)
    mask = None if case.mask is None else case.mask.numpy()
    want = oracle.topk(case.x.numpy(), values.numpy(), case.k, case.metric, ties, mask)
    got, neighbors = topk_aggregate(
        case.x.to(dtype),
        values.to(dtype),
        case.k,
        case.metric,
        ties=ties,
        mask=case.mask,
        backend=backend,
    )
    lists = oracle.neighbors(case.x.numpy(), case.k, case.metric, mask=mask)
    np.testing.assert_array_equal(neighbors.numpy(), lists)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    np.testing.assert_allclose(got.double().numpy(), want, rtol=2 * eps, atol=8 * eps)


@settings(max_examples=40, deadline=None)
@given(cases(metrics=("l2", "l1", "dot")), st.sampled_from(TIES))
def test_equals_the_definition(case: Case, ties: str) -> None:
    values = values_for(case).requires_grad_()
    results = [
        function(case.x, values, case.k, case.metric, ties=ties, mask=case.mask)
        for function in (topk_aggregate, topk_aggregate_reference)
    ]
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0], results[1][0])
    grad = torch.randn_like(results[0][0])
    torch.testing.assert_close(*[torch.autograd.grad(out, values, grad)[0] for out, _ in results])


def test_worked_examples() -> None:
    """Three nodes, K = 2: dot products without ties, Manhattan distances with one."""
    x = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)[None]
    half = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 1, 1]]], dtype=torch.float64) / 2
    for ties in TIES:
        weights, neighbors = topk_aggregate(x, eye, 2, "dot", ties=ties)
        torch.testing.assert_close(weights, half)
        assert neighbors.tolist() == [[[1, 0], [1, 2], [2, 1]]]
    weights, neighbors = topk_aggregate(x, eye, 2, "l1", ties="all")
    root = 6**-0.5
    want = torch.tensor([[[0.5, 0.5, 0], [0.5, 0.5, 0], [root, root, 1 / 3]]]).double()
    torch.testing.assert_close(weights, want)
    assert neighbors[0, 2].tolist() == [2, 0]


@settings(max_examples=25, deadline=None)
@given(cases(integers=False), st.sampled_from(TIES))
def test_permuted_nodes_have_permuted_results(case: Case, ties: str) -> None:
    order = torch.from_numpy(case.rng.permutation(case.x.shape[1]))
    values, mask = values_for(case), case.mask
    want, _ = topk_aggregate(case.x, values, case.k, case.metric, ties=ties, mask=mask)
    mask = None if mask is None else mask[:, order]
    got, _ = topk_aggregate(
        case.x[:, order], values[:, order], case.k, case.metric, ties=ties, mask=mask
    )
    torch.testing.assert_close(got, want[:, order])


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(TIES))
def test_absent_nodes_have_no_effect(case: Case, ties: str) -> None:
    mask = torch.from_numpy(case.rng.random(case.x.shape[:2]) < 0.6)
    x = case.x.masked_fill(~mask[..., None], torch.nan)
    values = values_for(case).masked_fill(~mask[..., None], torch.nan)
    got, _ = topk_aggregate(x, values, case.k, case.metric, ties=ties, mask=mask)
    assert not got[~mask].any()
    for b, present in enumerate(mask):
        if present.any():
            k = min(case.k, int(present.sum()))
            want, _ = topk_aggregate(
                x[b : b + 1, present], values[b : b + 1, present], k, case.metric, ties=ties
            )
            torch.testing.assert_close(got[b, present], want[0])


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_in_one_node_stays_there(metric: str, ties: str) -> None:
    x, values = torch.randn(2, 8, 5) + 1, torch.randn(2, 8, 4)
    others = [0, 1, 2, 4, 5, 6, 7]
    want, _ = topk_aggregate(x[:, others], values[:, others], 4, metric, ties=ties)
    x[:, 3], values[:, 3, 1] = torch.nan, torch.nan
    got, _ = topk_aggregate(x, values, 4, metric, ties=ties)
    torch.testing.assert_close(got[:, others], want)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_reaches_its_targets(value: float, ties: str) -> None:
    x, values = torch.randn(2, 8, 5), torch.randn(2, 8, 4)
    values[0, 3, 1] = value
    got, neighbors = topk_aggregate(x, values, 4, ties=ties)
    reached = torch.zeros_like(values, dtype=torch.bool)
    reached[0, :, 1] = (neighbors[0] == 3).any(1)
    assert reached.any() and torch.equal(~got.isfinite(), reached)


@pytest.mark.parametrize("ties", TIES)
def test_gradients_of_many_nodes_of_which_some_are_absent(ties: str) -> None:
    x, values = torch.randn(2, 41, 3), torch.randn(2, 41, 4, requires_grad=True)
    mask = torch.rand(2, 41) < 0.1
    cotangent = torch.randn(2, 41, 4)
    grads = [
        torch.autograd.grad(function(x, values, 5, ties=ties, mask=mask)[0], values, cotangent)[0]
        for function in (topk_aggregate, topk_aggregate_reference)
    ]
    torch.testing.assert_close(*grads)


def test_all_ties_include_nodes_that_exact_excludes() -> None:
    """Four equal nodes, K = 2: two of them are averaged, or all four."""
    x, values = torch.ones(1, 4, 3), torch.arange(4.0).view(1, 4, 1)
    for metric in METRICS:
        exact, _ = topk_aggregate(x, values, 2, metric)
        every, neighbors = topk_aggregate(x, values, 2, metric, ties="all")
        assert exact.flatten().tolist() == [0.5] * 4
        assert every.flatten().tolist() == [1.5] * 4
        assert neighbors.tolist() == [[[0, 1]] * 4]


def test_gradcheck_and_no_gradient_through_the_choice() -> None:
    x = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    for ties in TIES:
        for mask_or_none in (None, mask):
            assert torch.autograd.gradcheck(
                lambda v, t=ties, m=mask_or_none: topk_aggregate(x, v, 3, ties=t, mask=m)[0],
                values,
            )
        out, _ = topk_aggregate(x, values, 3, ties=ties)
        assert torch.autograd.grad(out.sum(), x, allow_unused=True) == (None,)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_good_as_torch(dtype: torch.dtype, ties: str) -> None:
    x, values = torch.randn(4, 18, 12).to(dtype), torch.randn(4, 18, 30).to(dtype)
    grad = torch.randn(4, 18, 30).to(dtype)

    def run(function, dtype: torch.dtype) -> list[Tensor]:
        leaf = values.to(dtype).requires_grad_()
        out, _ = function(x.to(dtype), leaf, 4, ties=ties)
        return [out.detach(), *torch.autograd.grad(out, leaf, grad.to(dtype))]

    exact = run(topk_aggregate_reference, torch.float64)
    plain = run(topk_aggregate_reference, dtype)
    value = run(topk_aggregate, dtype)
    for want, other, got in zip(exact, plain, value, strict=True):
        allowed = 2 * (other - want).abs().max() + torch.finfo(dtype).eps
        assert (got - want).abs().max() <= allowed


def test_layouts_dtypes_and_empty_batches() -> None:
    x, wide = torch.randn(3, 7, 5), torch.randn(3, 7, 8)
    for ties in TIES:
        want, _ = topk_aggregate(x, wide[..., :4].contiguous(), 3, ties=ties)
        got, _ = topk_aggregate(x, wide[..., :4], 3, ties=ties)
        assert torch.equal(got, want)
        for dtype in (torch.bfloat16, torch.float64):
            mixed, _ = topk_aggregate(x, wide.to(dtype), 3, ties=ties)
            assert mixed.dtype == dtype
        with torch.autocast("cpu", torch.bfloat16):
            inside, _ = topk_aggregate(x, wide[..., :4], 3, ties=ties)
        assert torch.equal(inside, want)
        out, neighbors = topk_aggregate(x[:0], wide[:0], 3, ties=ties)
        assert out.shape == (0, 7, 8) and neighbors.shape == (0, 7, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 7}, r"k must be in 1\.\.5 \(the number of nodes\), got 7"),
        ({"values": torch.zeros(2, 4, 3)}, r"values must have shape \(B=2, N=5, C\)"),
        ({"values": torch.zeros(2, 5, 3, dtype=torch.int32)}, "^values must be floating point"),
        ({"values": torch.zeros(2, 5, 3, device="meta")}, "^values must be on cpu, got meta"),
        ({"values": torch.zeros(3, 5, 3)}, r"^values must have shape \(B=2, N=5, C\)"),
        ({"backend": "pyg"}, "^topk_aggregate: backend='pyg'"),
        ({"ties": "any"}, "ties must be one of exact, all, got 'any'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    good = {"x": torch.zeros(2, 5, 3), "values": torch.zeros(2, 5, 3), "k": 2}
    with pytest.raises(ValueError, match=message):
        topk_aggregate(**good | arguments)


COARSE = """
import torch
from aurel.ops.registration import OPERATORS
op = OPERATORS["topk_aggregate"].op
torch.set_float32_matmul_precision("medium")
x, values = torch.randn(2, 6, 4), torch.randn(2, 6, 3, requires_grad=True)
for metric in ("dot", "l2", "cosine"):
    arguments = (x, values, None, 3, metric, "all", "torch")
    assert op(*arguments)[2].dtype == torch.float32
torch.library.opcheck(op, arguments)
"""


def test_opcheck_with_coarse_matrix_products() -> None:
    """In a process of its own, since torch cannot fully restore the setting."""
    subprocess.run([sys.executable, "-c", COARSE], check=True)
