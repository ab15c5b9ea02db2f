"""Kernels that gather and reduce over neighbour lists, forward and backward."""

from __future__ import annotations

import pytest
import torch
from aurel_kernels import neighbor_aggregate as kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import DEVICE, DTYPES, QUIET, integers
from torch import Tensor

from aurel.ops.neighbor_aggregate import (
    REDUCTIONS,
    neighbor_aggregate,
    neighbor_aggregate_reference,
)

pytestmark = QUIET

SLACK = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def random_lists(batch: int, nodes: int, k: int, seed: int, empty: float = 0.2) -> Tensor:
    """Neighbours with repetitions, and empty slots anywhere."""
    generator = torch.Generator().manual_seed(seed)
    lists = torch.randint(0, nodes, (batch, nodes, k), generator=generator)
    gone = torch.rand(lists.shape, generator=generator) < empty
    return lists.masked_fill(gone, -1).to(DEVICE)


def check(x: Tensor, lists: Tensor, reduce: str, seed: int = 0) -> None:
    """Values and gradients against the definition in float64, with integers that often tie."""
    grad = integers(*x.shape, dtype=x.dtype, seed=seed + 1)
    x = x.detach().requires_grad_()
    wide = x.detach().double().requires_grad_()
    got = neighbor_aggregate(x, lists, reduce, backend="triton")
    want = neighbor_aggregate_reference(wide, lists, reduce)
    assert got.dtype == x.dtype
    slack = SLACK[x.dtype]
    torch.testing.assert_close(got.double(), want, rtol=slack, atol=slack)
    (got_grad,) = torch.autograd.grad(got, x, grad)
    (want_grad,) = torch.autograd.grad(want, wide, grad.double())
    torch.testing.assert_close(got_grad.double(), want_grad, rtol=slack, atol=slack)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 70)),
    st.integers(1, 7),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.sampled_from((0, kernels.SCAN)),
)
def test_equals_the_definition(
    seed: int,
    shape: tuple[int, int, int],
    k: int,
    reduce: str,
    dtype: torch.dtype,
    transposed: bool,
    scan: int,
) -> None:
    x = integers(*shape, dtype=dtype, seed=seed)
    lists = random_lists(shape[0], shape[1], k, seed)
    if transposed:
        x, lists = x.mT.contiguous().mT, lists.mT.contiguous().mT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "SCAN", scan)  # 0: walk over the reversed edges
        check(x, lists, reduce, seed)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_more_nodes_than_a_program_owns(reduce: str) -> None:
    check(integers(1, 70, 5), random_lists(1, 70, 3, 0), reduce)


def test_more_nodes_than_are_scanned() -> None:
    nodes = kernels.SCAN + 3
    check(integers(1, nodes, 3), random_lists(1, nodes, 2, 0), "max")


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_64_neighbors(reduce: str) -> None:
    check(integers(1, 4, 3), random_lists(1, 4, 64, 0), reduce)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("scan", [0, kernels.SCAN], ids=["walk", "scan"])
def test_nan_stays_with_those_who_listen(reduce: str, scan: int, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "SCAN", scan)
    x = integers(1, 5, 3)
    x[0, 3, 1] = torch.nan
    lists = torch.tensor([[[0, 1], [3, 2], [2, -1], [-1, -1], [4, 3]]], device=DEVICE)
    out = neighbor_aggregate(x.requires_grad_(), lists, reduce, backend="triton")
    hit = torch.zeros(5, 3, dtype=torch.bool, device=DEVICE)
    hit[[1, 4], 1] = True
    assert torch.equal(out[0].isnan(), hit) and (out[0, 3] == 0).all()

    grad = torch.ones_like(x)
    grad[0, 2, 0] = torch.nan
    (grad_x,) = torch.autograd.grad(out, x, grad)
    reached = torch.zeros(5, 3, dtype=torch.bool, device=DEVICE)
    reached[2, 0] = True
    assert torch.equal(grad_x[0].isnan(), reached)


def test_the_winner_is_one_byte_and_kept_for_gradients_only() -> None:
    x, lists = integers(2, 5, 3), random_lists(2, 5, 4, 0, empty=0)
    out, winner = kernels.forward(x, lists, "max", True)
    assert winner.dtype == torch.uint8 and winner.shape == x.shape
    torch.testing.assert_close(x.gather(1, lists.gather(2, winner.long())), out)
    for reduce, keep in (("max", False), ("mean", True)):
        assert kernels.forward(x, lists, reduce, keep)[1].numel() == 0


def test_neighbors_beyond_the_graph_are_not_read() -> None:
    lists = torch.tensor([[[0, 7], [1, 0]]], device=DEVICE)
    x = integers(1, 2, 3)
    out, _ = kernels.forward(x, lists, "sum")
    assert torch.equal(out[0, 0], x[0, 0])
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match=r"neighbors must lie in -1\.\.1, got 0\.\.7"):
            neighbor_aggregate(x, lists, "sum", backend="triton")
