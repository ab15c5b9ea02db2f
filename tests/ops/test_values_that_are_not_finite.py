"""Infinities, NaN, zeros and empty slots give the same results on every backend of a CPU."""

from __future__ import annotations

import pytest
import torch

from aurel import ops
from aurel.ops.backend import Backend

INF, NAN = torch.inf, torch.nan
on_a_cpu = pytest.mark.parametrize("backend", ["definition", "torch", "numba"])


@on_a_cpu
def test_a_cosine_of_no_channels_is_a_tie(backend: Backend) -> None:
    neighbors = ops.knn_graph(torch.zeros(300, 70, 0), 3, "cosine", backend=backend)
    assert torch.equal(neighbors, torch.arange(3).expand(300, 70, 3))
    batch = torch.arange(100).repeat_interleave(3)
    ragged = ops.ragged_knn_graph(torch.zeros(300, 0), batch, 2, metric="cosine", backend=backend)
    assert torch.equal(ragged, (3 * batch)[:, None] + torch.arange(2))


@on_a_cpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_two_zero_nodes_have_a_distance_of_one(backend: Backend, dtype: torch.dtype) -> None:
    x = torch.tensor([[[0.0, 0], [1, 0], [0, 0], [-1, 0]]], dtype=dtype)
    bias = torch.tensor([0.0, 5, -3, 5], dtype=dtype).repeat(4, 1)
    neighbors = ops.knn_graph(x, 4, "cosine", bias=bias, backend=backend)
    assert neighbors[0, 0].tolist() == [2, 0, 1, 3]


@on_a_cpu
def test_a_gradient_of_absent_edges_of_nan_is_zero(backend: Backend) -> None:
    edge = torch.zeros(1, 2, 2, 1)
    edge[0, :, 1] = edge[0, 1] = NAN
    edge.requires_grad_()
    mask = torch.tensor([[True, False]])
    out = ops.gated_edge_aggregate(edge, torch.ones(1, 2, 1), mask=mask, backend=backend)
    for create_graph in (False, True):
        (grad,) = torch.autograd.grad(out.sum(), edge, create_graph=create_graph, retain_graph=True)
        assert grad.flatten().tolist() == [0.0] * 4


@on_a_cpu
def test_minus_infinity_wins_over_an_empty_slot(backend: Backend) -> None:
    x, neighbors = torch.full((1, 1, 1), -INF), torch.tensor([[[-1, 0]]])
    assert ops.neighbor_aggregate(x, neighbors, backend=backend).item() == -INF


@on_a_cpu
@pytest.mark.parametrize("ties", ["exact", "all"])
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_only_neighbors_reach_a_node(backend: Backend, ties: str, value: float) -> None:
    x = torch.tensor([[[1.0, 0], [0, 1]]])
    values = torch.tensor([[[value], [1.0]]])
    out, _ = ops.topk_aggregate(x, values, 1, "l2", ties=ties, backend=backend)
    want = torch.tensor([value, 1.0])
    assert torch.equal(out.flatten().nan_to_num(7.0), want.nan_to_num(7.0))


@on_a_cpu
def test_opposite_infinities_have_no_average(backend: Backend) -> None:
    x, values = torch.ones(1, 2, 1), torch.tensor([[[INF], [-INF]]])
    out, _ = ops.topk_aggregate(x, values, 1, "l2", ties="all", backend=backend)
    assert out.isnan().all()


@on_a_cpu
def test_scores_and_values_of_different_dtypes(backend: Backend) -> None:
    x, values = torch.ones(1, 2, 1).double(), torch.tensor([[[1.0], [3.0]]])
    out, _ = ops.topk_aggregate(x, values, 1, ties="all", backend=backend)
    assert out.dtype == torch.float32
    assert out.flatten().tolist() == [2.0, 2.0]


@on_a_cpu
def test_a_mean_of_halves_does_not_overflow(backend: Backend) -> None:
    x, neighbors = torch.full((1, 128, 1), 1024.0).half(), torch.arange(128).expand(1, 128, 128)
    out = ops.neighbor_aggregate(x, neighbors, "mean", backend=backend)
    assert (out == 1024).all()
