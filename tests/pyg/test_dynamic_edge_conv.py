"""`DynamicEdgeConv` against loops in numpy and against PyTorch Geometric's `EdgeConv`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("torch_geometric")

import torch_geometric.nn
from torch_geometric.nn import EdgeConv

from aurel.pyg import DynamicEdgeConv, knn

REDUCE = {"max": np.max, "sum": np.sum, "add": np.sum, "mean": np.mean}
WIDTH, OUT, K = 3, 5, 4


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * WIDTH, 6), nn.Tanh(), nn.Linear(6, OUT)).double()


def by_loops(
    mlp: nn.Sequential,
    sources: np.ndarray,
    nodes: np.ndarray,
    source_batch: np.ndarray,
    batch: np.ndarray,
    aggr: str,
) -> np.ndarray:
    """The reduction over the K nearest sources of the formula, one node after the other."""
    (w1, b1), (w2, b2) = (
        (mlp[i].weight.detach().numpy(), mlp[i].bias.detach().numpy()) for i in (0, 2)
    )
    out = np.zeros((len(nodes), OUT))
    for i, x in enumerate(nodes):
        candidates = np.flatnonzero(source_batch == batch[i])
        order = np.argsort(((sources[candidates] - x) ** 2).sum(1), kind="stable")[:K]
        edges = [
            w2 @ np.tanh(w1 @ np.concatenate((x, sources[j] - x)) + b1) + b2
            for j in candidates[order]
        ]
        if edges:
            out[i] = REDUCE[aggr](edges, axis=0)
    return out


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=4),
    aggr=st.sampled_from([*REDUCE]),
    bipartite=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_formula(sizes: list[tuple[int, int]], aggr: str, bipartite: bool, seed: int) -> None:
    """Graphs with fewer than K nodes and nodes without a source among them."""
    torch.manual_seed(seed)
    number = torch.arange(len(sizes)) * 3
    batches = [number.repeat_interleave(torch.tensor(side)) for side in zip(*sizes, strict=True)]
    x = [torch.randn(len(batch), WIDTH, dtype=torch.float64) for batch in batches]
    conv = DynamicEdgeConv(two_layers(), K, aggr)
    if bipartite:
        got = conv(tuple(x), tuple(batches))
    else:
        x, batches = [x[0], x[0]], [batches[0], batches[0]]
        got = conv(x[0], batches[0])
    expected = by_loops(conv.nn, *(part.numpy() for part in (*x, *batches)), aggr)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize("aggr", ["max", "sum", "add", "mean"])
def test_gives_the_numbers_of_edge_conv(aggr: str, bipartite: bool) -> None:
    """With a batch norm inside, whose statistics are over edges that exist; gradients as well."""
    mlp = nn.Sequential(nn.Linear(2 * WIDTH, OUT), nn.BatchNorm1d(OUT), nn.GELU()).double()
    batch = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 2])
    x = torch.randn(9, WIDTH, dtype=torch.float64, requires_grad=True)
    y = torch.randn(9, WIDTH, dtype=torch.float64, requires_grad=True) if bipartite else x
    edge_index = knn(x, y, K, batch, batch).flip(0)
    reference = EdgeConv(mlp, aggr=aggr)
    expected = reference((x, y), edge_index)
    conv = DynamicEdgeConv(mlp, K, aggr)
    got = conv((x, y), (batch, batch)) if bipartite else conv(x, batch)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(got)
    leaves = [x, y, *mlp.parameters()]
    grads = [torch.autograd.grad(out, leaves, weight) for out in (got, expected)]
    for actual, other in zip(*grads, strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-9, atol=1e-9)
    assert [*conv.state_dict()] == [*reference.state_dict()]


def test_one_graph_without_a_batch() -> None:
    conv = DynamicEdgeConv(two_layers(), K)
    x, y = torch.randn(2, 6, WIDTH, dtype=torch.float64)
    one = torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(conv(x), conv(x, one))
    torch.testing.assert_close(conv((x, y)), conv((x, y), (one, one)))


def test_runs_in_a_sequential_of_pyg() -> None:
    model = torch_geometric.nn.Sequential(
        "x, batch",
        [
            (DynamicEdgeConv(nn.Linear(2 * WIDTH, 8), K), "x, batch -> x"),
            (DynamicEdgeConv(nn.Linear(16, OUT), K, "mean"), "x, batch -> x"),
        ],
    )
    x, batch = torch.randn(7, WIDTH), torch.tensor([0, 0, 0, 0, 0, 1, 1])
    first, second = model[0], model[1]
    torch.testing.assert_close(model(x, batch), second(first(x, batch), batch))
    model(x, batch).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parameters_are_initialized_on_demand_alone() -> None:
    mlp = two_layers()
    before = mlp[0].weight.detach().clone()
    conv = DynamicEdgeConv(mlp, K)
    assert torch.equal(conv.nn[0].weight, before)
    torch.manual_seed(0)
    conv.reset_parameters()
    torch.manual_seed(0)
    mlp[0].reset_parameters()
    again = mlp[0].weight.detach().clone()
    torch.manual_seed(0)
    conv.reset_parameters()
    assert torch.equal(conv.nn[0].weight, again) and not torch.equal(again, before)


def test_messages() -> None:
    with pytest.raises(ValueError, match="aggr must be one of max, mean, sum, add, got 'min'"):
        DynamicEdgeConv(nn.Identity(), 2, "min")
    conv = DynamicEdgeConv(nn.Identity(), 2)
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        DynamicEdgeConv(nn.Identity(), 0)(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"batch_y must be a tensor for several"):
        conv((torch.zeros(2, 2), torch.zeros(2, 2)), (torch.tensor([0, 1]), None))
