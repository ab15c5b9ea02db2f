"""neighbor_aggregate: reductions over any list of neighbors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.every_backend import every_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.kernels.winners import winner_dtype
from aurel.ops.neighbor_aggregate import (
    REDUCTIONS,
    neighbor_aggregate,
    neighbor_aggregate_reference,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def random_graph(seed: int, empty: float) -> tuple[Tensor, Tensor]:
    """Return integer features, and lists in which slots may be empty and nodes may repeat."""
    rng = np.random.default_rng(seed)
    batch, nodes, k, channels = rng.integers(1, [4, 13, 7, 9])
    lists = rng.integers(0, nodes, (batch, nodes, k))
    lists[rng.random(lists.shape) < empty] = -1
    x = rng.integers(-4, 5, (batch, nodes, channels))
    return torch.from_numpy(x).double(), torch.from_numpy(lists)


@every_backend
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    empty=st.sampled_from([0.0, 0.4]),
    reduce=st.sampled_from(REDUCTIONS),
    dtype=st.sampled_from(DTYPES),
)
def test_equals_oracle_and_definition(
    backend: str, seed: int, empty: float, reduce: str, dtype: torch.dtype
) -> None:
    x, lists = random_graph(seed, empty)
    leaf = x.to(dtype, copy=True).requires_grad_()
    out = neighbor_aggregate(leaf, lists, reduce, backend=backend)
    want = oracle.aggregate(x.numpy(), lists.numpy(), reduce)
    tolerance = 2 * torch.finfo(dtype).eps if reduce == "mean" else 0
    assert out.dtype == dtype
    np.testing.assert_allclose(out.detach().double().numpy(), want, rtol=tolerance)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randint(-3, 4, x.shape, generator=generator).to(dtype)
    (got,) = torch.autograd.grad(out, leaf, grad)
    if reduce == "max":
        expected = oracle.max_gradient(
            x.numpy(), lists.numpy(), grad.double().numpy(), relative=False
        )
        np.testing.assert_array_equal(got.double().numpy(), expected)
    exact = x.clone().requires_grad_()
    reference = neighbor_aggregate_reference(exact, lists, reduce)
    np.testing.assert_allclose(reference.detach().numpy(), want, rtol=1e-14)
    (expected,) = torch.autograd.grad(reference, exact, grad.double())
    eps = torch.finfo(dtype).eps
    # Some terms of up to 3 that may cancel, each rounded once.
    torch.testing.assert_close(got.double(), expected, rtol=eps, atol=8 * eps)


def test_gradcheck() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    lists = torch.randint(-1, 5, (2, 5, 4))
    for reduce in REDUCTIONS:
        assert torch.autograd.gradcheck(lambda x, r=reduce: neighbor_aggregate(x, lists, r), x)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("nodes", [256, 300])
def test_more_nodes_than_a_byte_counts(nodes: int, reduce: str, padded: bool) -> None:
    x = torch.randn(2, nodes, 3, dtype=torch.float64, requires_grad=True)
    lists = torch.randint(-1 if padded else 0, nodes, (2, nodes, 4))
    got, want = neighbor_aggregate(x, lists, reduce), neighbor_aggregate_reference(x, lists, reduce)
    torch.testing.assert_close(got, want)
    cotangent = torch.randn_like(got)
    (grad,), (expected,) = (torch.autograd.grad(out, x, cotangent) for out in (got, want))
    torch.testing.assert_close(grad, expected)


def test_winners_are_kept_in_the_smallest_dtype() -> None:
    for nodes, dtype in (
        (1, torch.uint8),
        (256, torch.uint8),
        (257, torch.int16),
        (32_767, torch.int16),
        (32_768, torch.int32),
    ):
        assert winner_dtype(nodes) == dtype
        assert torch.tensor(nodes - 1).to(dtype).item() == nodes - 1


def test_nan_in_a_gradient_reaches_the_listed_nodes_only() -> None:
    x = torch.randn(1, 4, 3, requires_grad=True)
    lists = torch.tensor([[[0, 1], [2, 0], [-1, -1], [1, -1]]])
    for reduce in ("mean", "sum"):
        cotangent = torch.ones(1, 4, 3)
        cotangent[0, 1, 2] = torch.nan
        (grad,) = torch.autograd.grad(neighbor_aggregate(x, lists, reduce), x, cotangent)
        assert grad.isnan().nonzero().tolist() == [[0, 0, 2], [0, 2, 2]]


def test_nan_follows_the_lists() -> None:
    x = torch.randn(1, 4, 3)
    x[0, 2, 1] = torch.nan
    lists = torch.tensor([[[0, 1], [2, 0], [-1, -1], [1, -1]]])
    for reduce in REDUCTIONS:
        reached = neighbor_aggregate(x, lists, reduce).isnan()
        assert reached.nonzero().tolist() == [[0, 1, 1]]


def test_layouts_and_empty_batches() -> None:
    x = torch.randn(5, 6, 4).transpose(0, 2)
    lists = torch.randint(-1, 6, (3, 6, 4)).transpose(0, 2)
    for reduce in REDUCTIONS:
        want = neighbor_aggregate(x.contiguous(), lists.contiguous(), reduce)
        assert torch.equal(neighbor_aggregate(x, lists, reduce), want)
        assert neighbor_aggregate(torch.zeros(0, 6, 5), lists[:0], reduce).shape == (0, 6, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neighbors": torch.zeros(3, 5, 3, dtype=torch.int64)}, r"neighbors .*\(B=2, N, K\)"),
        ({"neighbors": torch.zeros(2, 5, 3)}, "neighbors must be int64 .* got torch.float32"),
        ({"neighbors": torch.zeros(2, 5, 0, dtype=torch.int64)}, "K >= 1, got .* K = 0"),
        ({"neighbors": torch.full((2, 5, 3), 5)}, r"neighbors must be in -1\.\.4, got 5\.\.5"),
        ({"neighbors": torch.full((2, 5, 3), -2)}, r"neighbors must be in -1\.\.4, got -2"),
        ({"reduce": "min"}, "reduce must be one of max, mean, sum, got 'min'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    good = {"x": torch.zeros(2, 5, 3), "neighbors": torch.zeros(2, 5, 2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        neighbor_aggregate(**good | arguments)
