"""Kernels that choose neighbours and reduce over them in one launch, and their gradients."""

from __future__ import annotations

import pytest
import torch
from aurel_kernels import knn
from aurel_kernels import knn_max_relative as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import DEVICE, DTYPES, METRICS, QUIET, Case, all_ties, cases, integers, neighbors
from torch import Tensor

from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import neighbor_aggregate_reference
from aurel.ops.topk_aggregate import TIES, topk_aggregate

pytestmark = QUIET

SLACK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def close(got: Tensor, want: Tensor) -> None:
    slack = SLACK[got.dtype]
    torch.testing.assert_close(got.double().cpu(), want.cpu(), rtol=slack, atol=slack)


def check_max_relative(
    x: Tensor, k: int, metric: str, loop: bool = True, mask: Tensor | None = None
) -> None:
    x = x.detach().requires_grad_()
    out, lists = knn_max_relative(x, k, metric, loop=loop, mask=mask, backend="triton")
    want_lists = neighbors(x.detach(), k, metric, loop, mask)
    assert torch.equal(lists.cpu(), want_lists)
    wide = x.detach().double().cpu().requires_grad_()
    want = neighbor_aggregate_reference(wide, want_lists, "max") - wide
    want = want.masked_fill((want_lists < 0).all(2, keepdim=True), 0)
    assert out.dtype == x.dtype and torch.equal(out.double().cpu(), want)
    grad = integers(*x.shape, dtype=x.dtype, seed=7)
    (grad_x,) = torch.autograd.grad(out, x, grad)
    (want_grad,) = torch.autograd.grad(want, wide, grad.double().cpu())
    assert grad_x.dtype == x.dtype and torch.equal(grad_x.double().cpu(), want_grad)


def check_topk(
    x: Tensor, values: Tensor, k: int, metric: str, ties: str, mask: Tensor | None = None
) -> None:
    values = values.detach().requires_grad_()
    out, lists = topk_aggregate(x, values, k, metric, ties=ties, mask=mask, backend="triton")
    want_lists = neighbors(x, k, metric, True, mask)
    assert torch.equal(lists.cpu(), want_lists) and out.dtype == values.dtype
    wide = values.detach().double().cpu().requires_grad_()
    if ties == "exact":
        want = neighbor_aggregate_reference(wide, want_lists, "mean")
    else:
        want = all_ties(x, wide, k, metric, mask) + 0 * wide  # joined even where nobody listens
    close(out, want)
    grad = integers(*values.shape, dtype=values.dtype, seed=7)
    (got_grad,) = torch.autograd.grad(out, values, grad)
    (want_grad,) = torch.autograd.grad(want, wide, grad.double().cpu())
    close(got_grad, want_grad)


@settings(max_examples=20, deadline=None)
@given(cases(most_nodes=16))
def test_max_relative_equals_the_definition(case: Case) -> None:
    check_max_relative(case.x, case.k, case.metric, case.loop, case.mask)


@settings(max_examples=25, deadline=None)
@given(cases(most_nodes=16), st.sampled_from(TIES), st.sampled_from(DTYPES), st.integers(1, 70))
def test_topk_equals_the_definition(
    case: Case, ties: str, dtype: torch.dtype, channels: int
) -> None:
    values = integers(*case.x.shape[:2], channels, dtype=dtype, seed=case.seed)
    check_topk(case.x, values, case.k, case.metric, ties, case.mask)


@pytest.mark.parametrize("nodes", [1, 41])
def test_whole_graphs(nodes: int) -> None:
    check_max_relative(integers(1, nodes, 6), min(nodes, 9), "l2")
    check_topk(integers(1, nodes, 6), integers(1, nodes, 5), min(nodes, 4), "dot", "all")


def test_several_tiles() -> None:
    check_max_relative(integers(1, 67, 6), 3, "l2")
    check_topk(integers(1, 67, 6), integers(1, 67, 5), 3, "dot", "exact")


@pytest.mark.parametrize("ties", TIES)
def test_fewer_nodes_than_k(ties: str) -> None:
    mask = torch.tensor([[False, True, False, False, True], [False] * 5], device=DEVICE)
    check_topk(integers(2, 5, 3), integers(2, 5, 4), 4, "l2", ties, mask)


def test_all_ties_of_equal_nodes_are_kept() -> None:
    x = torch.ones(1, 5, 3, device=DEVICE)
    values = integers(1, 5, 4)
    out, lists = topk_aggregate(x, values, 2, ties="all", backend="triton")
    torch.testing.assert_close(out, values.mean(1, keepdim=True).expand_as(out))
    assert (lists == torch.tensor([0, 1], device=DEVICE)).all()


@pytest.mark.parametrize("ties", TIES)
def test_broken_values_stay_with_those_who_listen(ties: str) -> None:
    x = torch.eye(4, device=DEVICE)[None] + torch.eye(4, device=DEVICE).roll(1, 0)[None]
    values = integers(1, 4, 3)
    values[0, 1, 2] = torch.nan
    out, lists = topk_aggregate(x, values.requires_grad_(), 2, ties=ties, backend="triton")
    listens = (lists == 1).any(2) if ties == "exact" else (x @ x.mT > 0)[:, :, 1]
    assert 0 < listens.sum() < 4
    assert torch.equal(out.isnan()[..., 2], listens) and not out[..., :2].isnan().any()

    grad = torch.ones_like(out)
    grad[0, 0, 0] = torch.nan
    (grad_values,) = torch.autograd.grad(out, values, grad)
    asked = torch.zeros(4, dtype=torch.bool, device=DEVICE)
    asked[lists[0, 0] if ties == "exact" else (x @ x.mT > 0)[0, 0].nonzero().flatten()] = True
    assert torch.equal(grad_values[0, :, 0].isnan(), asked)


def test_an_absent_node_gives_and_gets_nothing() -> None:
    mask = torch.tensor([[True, False, True, True, False]], device=DEVICE)
    x = integers(1, 5, 3).masked_fill(~mask[..., None], torch.nan).requires_grad_()
    for out, _ in (
        knn_max_relative(x, 2, mask=mask, backend="triton"),
        topk_aggregate(x, x, 2, ties="all", mask=mask, backend="triton"),
        topk_aggregate(x, x, 2, mask=mask, backend="triton"),
    ):
        (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
        assert (out[~mask] == 0).all() and (grad[~mask] == 0).all()
        assert out.isfinite().all() and grad.isfinite().all()


def test_no_gradient_flows_through_the_choice() -> None:
    x, values = integers(1, 5, 3).requires_grad_(), integers(1, 5, 2).requires_grad_()
    out, _ = topk_aggregate(x, values, 2, backend="triton")
    assert torch.autograd.grad(out.sum(), (x, values), allow_unused=True)[0] is None


def test_what_is_saved_is_one_byte_a_channel() -> None:
    x = integers(2, 5, 3)
    _, lists, winner = kernels.forward(x, 3, "l2", True, None)
    assert winner.dtype == torch.uint8 and winner.shape == x.shape and lists.shape == (2, 5, 3)
    assert kernels.forward(x, 3, "l2", True, None, False)[2].numel() == 0


@pytest.mark.parametrize("metric", METRICS)
def test_fused_and_plain_kernels_choose_alike(metric: str) -> None:
    x = torch.randn(2, 12, 20, device=DEVICE)
    lists = knn.forward(x, 4, metric, True, None)
    assert torch.equal(kernels.forward(x, 4, metric, True, None)[1], lists)
