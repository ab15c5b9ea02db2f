"""gated_edge_aggregate kernels: the formula and its gradients, absent nodes, NaN, sizes."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers.agreement import assert_agree
from helpers.plain import DEVICE, DTYPES, QUIET
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from aurel.kernels.triton import gated_edge_aggregate as kernels
from aurel.ops.gated_edge_aggregate import (
    _gated_edge_aggregate,
    _gated_edge_aggregate_backward,
    gated_edge_aggregate,
)

pytestmark = QUIET

triton = functools.partial(gated_edge_aggregate, backend="triton")


def problem(
    batch: int, nodes: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges, values and the gradient of the output."""
    edge = 3 * torch.randn(batch, nodes, nodes, channels, device=DEVICE)
    values, grad = torch.randn(2, batch, nodes, channels, device=DEVICE)
    return edge.to(dtype), values.to(dtype), grad.to(dtype)


def valid_only(
    edge: Tensor, values: Tensor, grad: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return output and gradients in float64, from graphs of the valid nodes, one by one."""
    edge, values = (each.double().requires_grad_() for each in (edge, values))
    out = torch.zeros_like(values)
    for b, graph in enumerate(edge):
        valid = (
            torch.arange(edge.shape[1], device=DEVICE) if mask is None else mask[b].nonzero()[:, 0]
        )
        weights = graph[valid][:, valid].sigmoid().softmax(1)
        out[b, valid] = (weights * values[b, valid]).sum(1)
    grad = grad.double() if mask is None else grad.double().where(mask[..., None], 0.0)
    return out.detach(), *torch.autograd.grad(out, (edge, values), grad)


def fill_absent(edge: Tensor, values: Tensor, grad: Tensor, mask: Tensor) -> None:
    """Write NaN wherever a node is absent."""
    edge[~(mask[:, :, None] & mask[:, None])] = torch.nan
    values[~mask] = grad[~mask] = torch.nan


def check(edge: Tensor, values: Tensor, grad: Tensor, mask: Tensor | None = None) -> None:
    got = kernels.forward(edge, values, mask), *kernels.backward(grad, edge, values, mask)
    want = valid_only(edge, values, grad, mask)
    for value, expected, like in zip(got, want, (values, edge, values), strict=True):
        assert value.is_contiguous() and value.dtype == like.dtype
        assert_agree(value, expected)


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 40)),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_equals_the_formula_whatever_lies_at_absent_nodes(
    shape: tuple[int, int, int], dtype: torch.dtype, masked: bool, strided: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    tensors = problem(*shape, dtype)
    mask = torch.rand(shape[:2], device=DEVICE) < 0.6 if masked else None
    if mask is not None:
        fill_absent(*tensors, mask)
    if strided:
        edge, values, grad = (each.mT.contiguous().mT for each in tensors)
        tensors = edge, values, grad
    check(*tensors, mask)


@pytest.mark.parametrize("channels", [130, 300])
def test_several_strips(channels: int) -> None:
    check(*problem(1, 3, channels))


def test_a_number_of_sources_that_unrolled_loops_do_not_divide() -> None:
    tensors = problem(1, 17, 3)
    mask = torch.arange(17, device=DEVICE)[None] % 5 != 1
    fill_absent(*tensors, mask)
    check(*tensors, mask)


@pytest.mark.parametrize("nodes", [41, 70, 130])
def test_gradients_of_larger_graphs(nodes: int) -> None:
    edge, values, grad = problem(1, nodes, 3)
    _, *want = valid_only(edge, values, grad, None)
    for got, expected in zip(kernels.backward(grad, edge, values, None), want, strict=True):
        assert_agree(got, expected)


def test_edges_and_values_of_different_dtypes() -> None:
    edge, values, grad = problem(1, 5, 7)
    check(edge.bfloat16(), values, grad)


def test_graphs_without_nodes_give_zeros() -> None:
    edge, values, grad = problem(2, 5, 3)
    mask = torch.zeros(2, 5, dtype=torch.bool, device=DEVICE)
    mask[1, [1, 4]] = True
    fill_absent(edge, values, grad, mask)
    leaves = [tensor.requires_grad_() for tensor in (edge, values)]
    out = triton(*leaves, mask=mask)
    grads = torch.autograd.grad(out, leaves, grad)
    assert not out[0].any() and not any(each[0].any() for each in grads)
    assert out[1, [1, 4]].all() and not out[1, [0, 2, 3]].any()
    assert all(each.isfinite().all() for each in grads)


def test_nan_of_an_edge_stays_with_its_target_and_channel() -> None:
    edge, values, grad = problem(2, 6, 4)
    edge[0, 2, 1, 3] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in (edge, values)]
    out = triton(*leaves)
    grad_edge, grad_values = torch.autograd.grad(out, leaves, grad)
    bad = torch.zeros(2, 6, 4, dtype=torch.bool, device=DEVICE)
    bad[0, 2, 3] = True
    assert torch.equal(out.isnan(), bad)
    assert torch.equal(grad_edge.isnan(), bad.unsqueeze(2).expand_as(grad_edge))
    assert torch.equal(grad_values.isnan(), bad.any(1, keepdim=True).expand_as(grad_values))


def test_saturated_gates() -> None:
    edge, values, grad = problem(1, 4, 3)
    edge[0, 1], edge[0, 2] = 1e4, -1e4
    edge[0, 3, 0], edge[0, 3, 1] = torch.inf, -torch.inf
    check(edge, values, grad)


@pytest.mark.parametrize("masked", [True, False])
def test_opcheck(masked: bool) -> None:
    edge, values, grad = problem(1, 2, 3)
    mask = torch.tensor([[False, True]], device=DEVICE) if masked else None
    opcheck(_gated_edge_aggregate_backward.op, (grad, edge, values, mask, "triton"))
    leaves = (edge.requires_grad_(), values.requires_grad_())
    opcheck(_gated_edge_aggregate.op, (*leaves, mask, "triton"))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty_inputs(shape: tuple[int, int, int]) -> None:
    edge, values, grad = problem(*shape)
    assert kernels.forward(edge, values, None).shape == shape
    grads = kernels.backward(grad, edge, values, None)
    assert [each.shape for each in grads] == [edge.shape, values.shape]


def test_sizes_that_are_not_served() -> None:
    values = torch.zeros(1, 257, 1, device=DEVICE)
    edge = torch.zeros(1, 257, 257, 1, device=DEVICE)
    with pytest.raises(ValueError, match="up to 256 nodes, got 257"):
        triton(edge, values)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_every_run_gives_the_same_bits() -> None:
    edge, values, grad = problem(16, 27, 512)
    leaves = (edge.requires_grad_(), values.requires_grad_())

    def run() -> list[Tensor]:
        out = triton(*leaves)
        return [out, *torch.autograd.grad(out, leaves, grad)]

    first = run()
    for _ in range(9):
        assert all(map(torch.equal, run(), first))
