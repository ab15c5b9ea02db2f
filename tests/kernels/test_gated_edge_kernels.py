"""gated_edge_aggregate kernels: the definition, its gradients, absent nodes, broken edges."""

from __future__ import annotations

import functools

import pytest
import torch
from agreement import check
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import DEVICE, DTYPES, QUIET
from torch import Tensor
from torch.library import opcheck

from aurel.ops.gated_edge_aggregate import (
    _gated_edge_aggregate,
    _gated_edge_aggregate_backward,
    gated_edge_aggregate,
    gated_edge_aggregate_reference,
)

pytestmark = QUIET

triton = functools.partial(gated_edge_aggregate, backend="triton")


def problem(
    batch: int, nodes: int, channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges, values and a cotangent."""
    edge = 3 * torch.randn(batch, nodes, nodes, channels, device=DEVICE)
    values, grad = torch.randn(2, batch, nodes, channels, device=DEVICE)
    return edge.to(dtype), values.to(dtype), grad


def compare(edge: Tensor, values: Tensor, grad: Tensor, mask: Tensor | None = None) -> None:
    check(
        lambda e, v: triton(e, v, mask=mask),
        lambda e, v: gated_edge_aggregate_reference(e, v, mask),
        [edge, values],
        [grad],
    )


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 40)),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_equals_the_definition(
    shape: tuple[int, int, int], dtype: torch.dtype, masked: bool, strided: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    edge, values, grad = problem(*shape, dtype)
    mask = torch.rand(shape[:2], device=DEVICE) < 0.7 if masked else None
    if mask is not None:
        mask[:, 0] = True  # the definition has no softmax over nothing
    if strided:
        edge, values = edge.mT.contiguous().mT, values.mT.contiguous().mT
    compare(edge, values, grad, mask)


@pytest.mark.parametrize("nodes", [33, 70])
def test_larger_blocks(nodes: int) -> None:
    compare(*problem(1, nodes, 5))


def test_where_no_node_exists_all_is_zero() -> None:
    edge, values, grad = problem(2, 5, 3)
    mask = torch.zeros(2, 5, dtype=torch.bool, device=DEVICE)
    mask[1, [1, 4]] = True
    edge[0] = values[0] = torch.nan
    leaves = [tensor.requires_grad_() for tensor in (edge, values)]
    out = triton(*leaves, mask=mask)
    grads = torch.autograd.grad(out, leaves, grad)
    assert not out[0].any() and not any(each[0].any() for each in grads)
    assert out[1, [1, 4]].all() and not out[1, [0, 2, 3]].any()


def test_a_broken_edge_stays_with_its_target_and_channel() -> None:
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
    compare(edge, values, grad)


@pytest.mark.parametrize("masked", [True, False])
def test_opcheck(masked: bool) -> None:
    edge, values, grad = problem(2, 4, 3)
    mask = torch.tensor([[True, False, True, True]] * 2, device=DEVICE) if masked else None
    opcheck(_gated_edge_aggregate_backward, (grad, edge, values, mask, "triton"))
    leaves = (edge.requires_grad_(), values.requires_grad_())
    opcheck(_gated_edge_aggregate, (*leaves, mask, "triton"))


def test_nothing_to_do() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        edge, values, grad = (tensor.requires_grad_() for tensor in problem(*shape))
        out = triton(edge, values)
        grads = torch.autograd.grad(out, (edge, values), grad)
        assert out.shape == shape and grads[0].shape == edge.shape


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
