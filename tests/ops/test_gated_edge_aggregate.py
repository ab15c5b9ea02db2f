"""`gated_edge_aggregate` against its equation in numpy, and the properties of every op."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.gated_edge_aggregate import gated_edge_aggregate, gated_edge_aggregate_reference

SIZES = [(1, 1, 1), (2, 3, 5), (1, 7, 2), (3, 4, 13)]


def inputs(batch: int, nodes: int, channels: int, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    edge = 3 * torch.randn(batch, nodes, nodes, channels, dtype=dtype)
    return edge, torch.randn(batch, nodes, channels, dtype=dtype)


def oracle(edge: np.ndarray, values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Compute the aggregate node by node; present (B, N)."""
    out = np.zeros_like(values)
    for b, i in np.argwhere(present):
        gate = np.exp(1 / (1 + np.exp(-edge[b, i, present[b]])))
        out[b, i] = (gate / gate.sum(0) * values[b, present[b]]).sum(0)
    return out


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
@pytest.mark.parametrize("function", [gated_edge_aggregate, gated_edge_aggregate_reference])
def test_equals_the_equation(size: tuple[int, ...], masked: bool, function) -> None:
    edge, values = inputs(*size)
    mask = torch.rand(size[:2]) < 0.6 if masked else None
    present = np.ones(size[:2], bool) if mask is None else mask.numpy()
    want = oracle(edge.numpy(), values.numpy(), present)
    np.testing.assert_allclose(function(edge, values, mask=mask), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("masked", [False, True], ids=["all present", "mask"])
def test_blocks_of_images_change_nothing(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(5, 3, 4)]
    cotangent = torch.randn(5, 3, 4, dtype=torch.float64)
    mask = torch.rand(5, 3) < 0.7 if masked else None
    results = []
    for images in (5, 2, 1):
        monkeypatch.setattr(import_module("aurel.ops.gated_edge_aggregate"), "_BLOCK", images * 36)
        out = gated_edge_aggregate(*leaves, mask=mask)
        results.append([out, *torch.autograd.grad(out, leaves, cotangent)])
    for result in results[1:]:
        for value, want in zip(result, results[0], strict=True):
            torch.testing.assert_close(value, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("budget", "images"), [(180, 5), (107, 2), (72, 2), (71, 1), (9, 1)])
def test_blocks_are_as_large_as_the_budget_allows(
    budget: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("aurel.ops.gated_edge_aggregate")
    monkeypatch.setattr(module, "_BLOCK", budget)
    mask, starts = torch.rand(5, 3) < 0.5, range(0, 5, images)
    blocks = [*module._blocks(torch.empty(5, 3, 3, 4), mask)]
    assert [block for block, _ in blocks] == [slice(start, start + images) for start in starts]
    assert torch.equal(torch.cat([part for _, part in blocks]), mask)


def test_gradcheck() -> None:
    edge, values = (tensor.requires_grad_() for tensor in inputs(2, 3, 2))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.autograd.gradcheck(gated_edge_aggregate, (edge, values))
    assert torch.autograd.gradcheck(
        lambda e, v: gated_edge_aggregate(e, v, mask=mask), (edge, values)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    edge, values = (tensor.to(dtype).requires_grad_() for tensor in inputs(2, 5, 3))
    out = gated_edge_aggregate(edge, values)
    exact = gated_edge_aggregate_reference(edge.double(), values.double())
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), exact, rtol=4 * step, atol=4 * step)
    grads = torch.autograd.grad(out.sum(), (edge, values))
    expected = torch.autograd.grad(exact.sum(), (edge, values))
    for grad, want in zip(grads, expected, strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, want, rtol=4 * step, atol=4 * step)


@pytest.mark.parametrize("function", [gated_edge_aggregate, gated_edge_aggregate_reference])
def test_half_precision_is_rounded_once(function) -> None:
    """Only the result is rounded: all else is float32."""
    halves = [tensor.bfloat16().requires_grad_() for tensor in inputs(2, 5, 3)]
    wide = [half.detach().float().requires_grad_() for half in halves]
    out, want = function(*halves), function(*wide)
    assert torch.equal(out, want.bfloat16())
    cotangent = torch.randn(2, 5, 3).bfloat16()
    grads = torch.autograd.grad(out, halves, cotangent)
    expected = torch.autograd.grad(want, wide, cotangent.float())
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(grads, expected, strict=True))


def test_mixed_dtypes_are_promoted() -> None:
    edge, values = inputs(2, 3, 4, torch.float32)
    assert gated_edge_aggregate(edge.bfloat16(), values).dtype == torch.float32


def test_masked_nodes_equal_absent_ones() -> None:
    edge, values = inputs(2, 4, 3)
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    kept = [0, 2, 3]
    want = gated_edge_aggregate(edge[:1, kept][:, :, kept], values[:1, kept])
    edge[0, 1], edge[0, :, 1], values[0, 1], values[1] = (torch.nan,) * 4
    edge.requires_grad_(), values.requires_grad_()
    out = gated_edge_aggregate(edge, values, mask=mask)
    torch.testing.assert_close(out[:1, kept], want)
    assert not out[0, 1].any() and not out[1].any()
    out.sum().backward()
    assert edge.grad.isfinite().all() and values.grad.isfinite().all()
    assert not values.grad[~mask].any()


def test_nan_edge_stays_in_its_target() -> None:
    edge, values = inputs(2, 4, 3)
    edge[0, 2, 1, 0] = torch.nan
    bad = torch.zeros(2, 4, 3, dtype=torch.bool)
    bad[0, 2, 0] = True
    assert torch.equal(gated_edge_aggregate(edge, values).isnan(), bad)


def test_any_memory_layout() -> None:
    edge, values = inputs(2, 3, 4)
    out = gated_edge_aggregate(edge.mT.contiguous().mT, values.mT.contiguous().mT)
    torch.testing.assert_close(out, gated_edge_aggregate(edge, values))


def test_empty_batch() -> None:
    edge, values = (tensor.requires_grad_() for tensor in inputs(0, 3, 4))
    out = gated_edge_aggregate(edge, values)
    out.sum().backward()
    assert out.shape == (0, 3, 4) and edge.grad.shape == edge.shape


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_permuting_nodes_permutes_the_result(order: list[int]) -> None:
    torch.manual_seed(0)
    edge, values = inputs(2, 4, 3)
    moved = gated_edge_aggregate(edge[:, order][:, :, order], values[:, order])
    torch.testing.assert_close(moved, gated_edge_aggregate(edge, values)[:, order])


def test_messages() -> None:
    edge, values = inputs(2, 3, 4)
    with pytest.raises(ValueError, match=r"edge must have shape \(B=2, N=3, N=3, C=4\)"):
        gated_edge_aggregate(edge.flatten(1, 2), values)
    with pytest.raises(ValueError, match=r"values must have shape \(B, N, C\)"):
        gated_edge_aggregate(edge, values[0])
    with pytest.raises(ValueError, match="^edge must be floating point"):
        gated_edge_aggregate(edge.long(), values)
    with pytest.raises(ValueError, match="^values must be floating point"):
        gated_edge_aggregate(edge, values.long())
    with pytest.raises(ValueError, match="^edge must be on cpu, got meta"):
        gated_edge_aggregate(edge.to("meta"), values)
    with pytest.raises(ValueError, match="backend='triton' cannot serve this call"):
        gated_edge_aggregate(edge, values, backend="triton")
