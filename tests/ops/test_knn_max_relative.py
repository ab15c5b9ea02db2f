"""knn_max_relative: values and gradients, with ties, masks and NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.strategies_knn import METRICS, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.knn_max_relative import knn_max_relative, knn_max_relative_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def of_case(case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    return knn_max_relative(x, case.k, case.metric, loop=case.loop, mask=case.mask)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(DTYPES))
def test_values_and_gradients_equal_the_oracle(case: Case, dtype: torch.dtype) -> None:
    mask = None if case.mask is None else case.mask.numpy()
    want = oracle.neighbors(case.x.numpy(), case.k, case.metric, case.loop, mask)
    x = case.x.to(dtype, copy=True).requires_grad_()
    out, neighbors = of_case(case, x)
    np.testing.assert_array_equal(neighbors.numpy(), want)
    assert out.dtype == dtype
    expected = oracle.max_relative(case.x.numpy(), want)
    np.testing.assert_array_equal(out.detach().double().numpy(), expected)
    grad = torch.from_numpy(case.rng.integers(-3, 4, x.shape)).to(dtype)
    (got,) = torch.autograd.grad(out, x, grad)
    expected = oracle.max_gradient(case.x.numpy(), want, grad.double().numpy(), relative=True)
    np.testing.assert_array_equal(got.double().numpy(), expected)
    with torch.no_grad():  # keeps no winners
        again, _ = of_case(case, x)
    assert torch.equal(again, out)


@settings(max_examples=25, deadline=None)
@given(cases(metrics=("l2", "l1", "dot")))
def test_equals_the_definition(case: Case) -> None:
    x = case.x.float().requires_grad_()
    want, lists = knn_max_relative_reference(x, case.k, case.metric, loop=case.loop, mask=case.mask)
    got, neighbors = of_case(case, x)
    assert torch.equal(neighbors, lists)
    assert torch.equal(got, want)
    grad = torch.from_numpy(case.rng.integers(-3, 4, x.shape)).float()
    pairs = [torch.autograd.grad(out, x, grad)[0] for out in (got, want)]
    assert torch.equal(*pairs)


@settings(max_examples=25, deadline=None)
@given(cases(integers=False))
def test_permuted_nodes_have_permuted_results(case: Case) -> None:
    order = torch.from_numpy(case.rng.permutation(case.x.shape[1]))
    want = of_case(case, case.x)[0][:, order]
    if case.mask is not None:
        case.mask = case.mask[:, order]
    assert torch.equal(of_case(case, case.x[:, order])[0], want)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_absent_nodes_have_no_effect(case: Case) -> None:
    mask = torch.from_numpy(case.rng.random(case.x.shape[:2]) < 0.6)
    garbage = case.x.float().masked_fill(~mask[..., None], torch.nan).requires_grad_()
    out, _ = knn_max_relative(garbage, case.k, case.metric, loop=case.loop, mask=mask)
    (grad,) = torch.autograd.grad(out, garbage, torch.ones_like(out))
    assert not out[~mask].any() and not grad[~mask].any()
    for b, present in enumerate(mask):
        alone = case.x[b : b + 1, present].float().requires_grad_()
        k = min(case.k, alone.shape[1] - (not case.loop))
        if k > 0:
            want, _ = knn_max_relative(alone, k, case.metric, loop=case.loop)
            assert torch.equal(out[b, present], want[0])
            (want_grad,) = torch.autograd.grad(want, alone, torch.ones_like(want))
            assert torch.equal(grad[b, present], want_grad[0])
        else:
            assert not out[b].any()


@settings(max_examples=25, deadline=None)
@given(cases(metrics=("l2", "l1")), st.sampled_from([0.5, 8.0]), st.integers(-50, 50))
def test_shifts_vanish_and_scales_remain(case: Case, scale: float, shift: int) -> None:
    x = case.x.float()
    assert torch.equal(of_case(case, x * scale + shift)[0], of_case(case, x)[0] * scale)


def test_gradcheck() -> None:
    x = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 7, [True, False, True, True, False, True, True]])
    for metric in METRICS:
        for options in ({}, {"loop": False}, {"mask": mask}):
            assert torch.autograd.gradcheck(
                lambda x, m=metric, o=options: knn_max_relative(x, 3, m, **o)[0], x
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_good_as_torch(dtype: torch.dtype) -> None:
    x = torch.randn(4, 18, 40).to(dtype)
    grad = torch.randn(4, 18, 40).to(dtype)

    def run(function, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        out, _ = function(x, 9)
        return [out.detach(), *torch.autograd.grad(out, x, grad.to(x.dtype))]

    exact = run(knn_max_relative_reference, x.double())
    plain = run(knn_max_relative_reference, x)
    fast = run(knn_max_relative, x)
    for want, other, got in zip(exact, plain, fast, strict=True):
        error, allowed = (got - want).abs().max(), (other - want).abs().max()
        assert got.dtype == dtype
        assert error <= 2 * allowed + torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_rows_and_many_slots(dtype: torch.dtype) -> None:
    """There are more nodes, and slots, than a byte or bfloat16 counts."""
    x = torch.randn(1, 300, 3).to(dtype).requires_grad_()
    weight = torch.randn(1, 300, 3).to(dtype)
    wide = x.detach().float().requires_grad_()
    want, lists = knn_max_relative_reference(wide, 290)
    (want_grad,) = torch.autograd.grad((want * weight.float()).sum(), wide)
    out, neighbors = knn_max_relative(x, 290)
    assert torch.equal(neighbors, lists)
    assert torch.equal(out, want.to(dtype))
    (grad,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close(grad, want_grad.to(dtype))


def test_nan_in_one_node_stays_there() -> None:
    x = torch.randn(2, 8, 5)
    want, _ = knn_max_relative(torch.cat((x[:, :3], x[:, 4:]), dim=1), 4)
    x[0, 3, 2] = torch.nan
    x[1, 3] = torch.nan
    out, _ = knn_max_relative(x, 4)
    assert torch.equal(out[:, [0, 1, 2, 4, 5, 6, 7]], want)
    assert out[0, 3].isnan().tolist() == [False, False, True, False, False]


def test_layouts_and_empty_batches() -> None:
    x = torch.randn(6, 5, 4).transpose(0, 2)
    want = knn_max_relative(x.contiguous(), 2)[0]
    assert torch.equal(knn_max_relative(x, 2)[0], want)
    leaf = x.detach().requires_grad_()
    knn_max_relative(leaf, 2)[0].transpose(0, 1).sum().backward()
    dense = x.contiguous().requires_grad_()
    knn_max_relative(dense, 2)[0].sum().backward()
    assert torch.equal(leaf.grad, dense.grad)
    empty = torch.randn(0, 5, 4, requires_grad=True)
    out, neighbors = knn_max_relative(empty, 2)
    assert out.shape == (0, 5, 4) and neighbors.shape == (0, 5, 2)
    out.sum().backward()
    assert empty.grad.shape == (0, 5, 4)


def test_errors_come_from_the_same_checks() -> None:
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5 \(the number of nodes\), got 9"):
        knn_max_relative(torch.zeros(2, 5, 3), 9)


def test_compiles_whole_with_its_gradient() -> None:
    def function(x: Tensor) -> Tensor:
        out, neighbors = knn_max_relative(x * 2, 3)
        return out.sin() + neighbors.sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 7, 8, requires_grad=True)
    got, want = compiled(x), function(x)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (got, want)]
    torch.testing.assert_close(*grads)
