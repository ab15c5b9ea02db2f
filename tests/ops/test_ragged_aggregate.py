"""Reductions and max-relative over ragged neighbor lists: dense, torch and torch-scatter agree."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.strategies_ragged import RaggedCase, every_backend, needs_extensions, ragged_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurel.ops.knn_max_relative import knn_max_relative
from aurel.ops.neighbor_aggregate import REDUCTIONS, neighbor_aggregate
from aurel.ops.ragged_aggregate import ragged_knn_max_relative, ragged_neighbor_aggregate
from aurel.ops.ragged_knn_graph import ragged_knn_graph


@every_backend
@settings(max_examples=200, deadline=None)
@given(case=ragged_cases(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_max_relative_equals_oracle_and_dense_op(
    backend: str, case: RaggedCase, dtype: torch.dtype
) -> None:
    leaf = case.x.to(dtype, copy=True).requires_grad_()
    out, lists = ragged_knn_max_relative(leaf, case.batch, case.k, loop=case.loop, backend=backend)
    grad = torch.from_numpy(case.rng.integers(-3, 4, leaf.shape)).to(dtype)
    (got,) = torch.autograd.grad(out, leaf, grad)
    arrays = [tensor.numpy()[None] for tensor in (case.x, lists)]
    np.testing.assert_array_equal(out.detach().numpy()[None], oracle.max_relative(*arrays))
    want = oracle.max_gradient(*arrays, grad.double().numpy()[None], relative=True)
    np.testing.assert_array_equal(got.numpy()[None], want)

    x, mask, row = case.dense()
    x = x.to(dtype).requires_grad_()
    dense, dense_lists = knn_max_relative(x, case.k, loop=case.loop, mask=mask)
    assert torch.equal(lists, case.to_rows(dense_lists, row))
    assert torch.equal(out, dense[mask])
    padded = torch.zeros_like(dense).index_put((mask,), grad)
    assert torch.equal(got, torch.autograd.grad(dense, x, padded)[0][mask])


@every_backend
@settings(max_examples=200, deadline=None)
@given(case=ragged_cases(), reduce=st.sampled_from(REDUCTIONS), empty=st.booleans())
def test_reductions_equal_oracle_and_dense_op(
    backend: str, case: RaggedCase, reduce: str, empty: bool
) -> None:
    """Empty slots may also come before nodes, other than in lists of `ragged_knn_graph`."""
    x, mask, row = case.dense()
    nodes = mask.shape[1]
    lists = torch.from_numpy(case.rng.integers(-1, nodes, (*mask.shape, case.k)))
    lists = lists.where(mask[torch.arange(len(mask))[:, None, None], lists.clamp_min(0)], -1)
    lists = lists.where(mask[..., None] & (not empty), -1)
    ragged = case.to_rows(lists, row)
    leaf = case.x.clone().requires_grad_()
    out = ragged_neighbor_aggregate(leaf, ragged, reduce, backend=backend)
    want = oracle.aggregate(case.x.numpy()[None], ragged.numpy()[None], reduce)[0]
    np.testing.assert_allclose(out.detach().numpy(), want, rtol=1e-14)
    grad = torch.from_numpy(case.rng.integers(-3, 4, leaf.shape)).double()
    (got,) = torch.autograd.grad(out, leaf, grad)
    x = x.nan_to_num(nan=0.0).requires_grad_()
    dense = neighbor_aggregate(x, lists, reduce)
    padded = torch.zeros_like(dense).index_put((mask,), grad)
    torch.testing.assert_close(got, torch.autograd.grad(dense, x, padded)[0][mask])
    with torch.no_grad():  # keeps no winners
        assert torch.equal(ragged_neighbor_aggregate(leaf, ragged, reduce, backend=backend), out)


@every_backend
def test_gradcheck(backend: str) -> None:
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    batch = torch.tensor([0, 1, 1, 1, 1, 1, 4, 4, 4])
    lists = ragged_knn_graph(x, batch, 4)
    for reduce in REDUCTIONS:
        assert torch.autograd.gradcheck(
            lambda x, r=reduce: ragged_neighbor_aggregate(x, lists, r, backend=backend), x
        )
    assert torch.autograd.gradcheck(
        lambda x: ragged_knn_max_relative(x, batch, 4, backend=backend)[0], x
    )


@every_backend
def test_empty_batches_and_layouts(backend: str) -> None:
    none = torch.zeros(0, 3, requires_grad=True)
    out, lists = ragged_knn_max_relative(none, none.new_zeros(0).long(), 2, backend=backend)
    out.sum().backward()
    assert out.shape == none.grad.shape == (0, 3) and lists.shape == (0, 2)
    x, lists = torch.randn(4, 6).t(), torch.randint(-1, 6, (3, 6)).t()
    for reduce in REDUCTIONS:
        want = ragged_neighbor_aggregate(
            x.contiguous(), lists.contiguous(), reduce, backend=backend
        )
        assert torch.equal(ragged_neighbor_aggregate(x, lists, reduce, backend=backend), want)
        flat = ragged_neighbor_aggregate(x[:, :0], lists, reduce, backend=backend)
        assert flat.shape == (6, 0)


def test_other_metrics_and_nan() -> None:
    x, batch = torch.randn(9, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    for metric in ("l1", "cosine", "dot"):
        want, lists = ragged_knn_max_relative(x, batch, 3, metric)
        dense, dense_lists = knn_max_relative(x[None, 4:], 3, metric)
        torch.testing.assert_close(want[4:], dense[0])
        assert torch.equal(lists[4:], dense_lists[0] + 4)
    with_nan = x.clone()
    with_nan[2] = torch.nan
    out, _ = ragged_knn_max_relative(with_nan, batch, 3)
    assert torch.equal(out[4:], ragged_knn_max_relative(x, batch, 3)[0][4:])
    assert out[[0, 1, 3]].isfinite().all()


def test_compiles_whole_with_its_gradient() -> None:
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1])

    def function(x: Tensor) -> Tensor:
        out, neighbors = ragged_knn_max_relative(x * 2, batch, 3)
        return out.sin() + neighbors.sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 8, requires_grad=True)
    got, want = compiled(x), function(x)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in (got, want)]
    torch.testing.assert_close(*grads)


@needs_extensions
def test_torch_scatter_refuses_nan_and_half_precision() -> None:
    x, lists = torch.randn(4, 3), torch.randint(-1, 4, (4, 2))
    with pytest.raises(ValueError, match="serves float32 and float64, got torch.float16"):
        ragged_neighbor_aggregate(x.half(), lists, backend="pyg")
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="backend='pyg' serves finite features"):
        ragged_neighbor_aggregate(x, lists, backend="pyg")


def test_both_steps_of_max_relative_take_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    module, requested = import_module("aurel.ops.ragged_aggregate"), []

    def spy(function: Any) -> Any:
        def called(*args: Any, backend: str, **options: Any) -> Tensor:
            requested.append(backend)
            return function(*args, backend=backend, **options)

        return called

    for step in (ragged_knn_graph, ragged_neighbor_aggregate):
        monkeypatch.setattr(module, step.__name__, spy(step))
    ragged_knn_max_relative(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), 2, backend="torch")
    assert requested == ["torch", "torch"]


def test_messages() -> None:
    x, lists = torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"x must have shape \(Q, C\)"):
        ragged_neighbor_aggregate(x[None], lists)
    with pytest.raises(ValueError, match=r"neighbors must have shape \(P, K\), got \(1, 4, 2\)"):
        ragged_neighbor_aggregate(x, lists[None])
    with pytest.raises(ValueError, match=r"neighbors must be in -1\.\.3, got 0\.\.4"):
        ragged_neighbor_aggregate(x, torch.tensor([[0], [1], [2], [4]]))
