"""A relation graph as a dense matrix, in networkx and in PyTorch Geometric."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from aurel.graph import RelationGraph

# Node 0 has edges from 1 and 2, node 1 from itself, node 2 from none.
NEIGHBORS = torch.tensor([[[1, 2], [1, -1], [-1, -1]]])
WEIGHTS = torch.tensor([[[0.5, 0.25], [2.0, torch.nan], [torch.nan, torch.inf]]])
DENSE = torch.tensor([[[0.0, 0.5, 0.25], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])


def test_adjacency_of_a_neighbor_list() -> None:
    assert torch.equal(RelationGraph(NEIGHBORS).adjacency(), (DENSE > 0).float())
    assert torch.equal(RelationGraph(NEIGHBORS, WEIGHTS).adjacency(), DENSE)
    assert RelationGraph(NEIGHBORS, WEIGHTS.double()).adjacency().dtype == torch.float64


def test_adjacency_against_a_loop() -> None:
    batch, nodes, k = 3, 7, 4
    neighbors = torch.rand(batch, nodes, nodes).argsort(-1)[..., :k]
    neighbors[torch.rand(batch, nodes, k) < 0.3] = -1
    weights = torch.randn(batch, nodes, k)
    expected = np.zeros((batch, nodes, nodes), np.float32)
    for b, i, slot in np.ndindex(batch, nodes, k):
        if (j := neighbors[b, i, slot]) >= 0:
            expected[b, i, j] = weights[b, i, slot]
    np.testing.assert_array_equal(RelationGraph(neighbors, weights).adjacency(), expected)


def test_adjacency_of_dense_graphs() -> None:
    assert RelationGraph(weights=DENSE).adjacency() is DENSE
    ones = RelationGraph(edge_features=torch.randn(2, 3, 3, 4)).adjacency()
    assert torch.equal(ones, torch.ones(2, 3, 3))


def test_adjacency_carries_gradients() -> None:
    weights = torch.ones(1, 3, 2, requires_grad=True)
    RelationGraph(NEIGHBORS, weights).adjacency().sum().backward()
    assert torch.equal(weights.grad, (NEIGHBORS >= 0).float())


def test_a_neighbor_of_weight_zero_is_still_a_neighbor() -> None:
    pytest.importorskip("networkx")
    graph = RelationGraph(NEIGHBORS, torch.zeros(1, 3, 2))
    assert torch.equal(graph.edges(), DENSE > 0)
    assert torch.equal(RelationGraph(weights=DENSE).edges(), DENSE > 0)
    assert graph.to_networkx().number_of_edges() == 3


def test_a_graph_without_edges_of_any_kind_is_rejected() -> None:
    with pytest.raises(
        ValueError, match="^neighbors, weights or edge_features must be given, got None"
    ):
        RelationGraph()


def test_networkx_edges_point_at_the_target() -> None:
    pytest.importorskip("networkx")
    graph = RelationGraph(NEIGHBORS, WEIGHTS).to_networkx(names=["AU01", "AU02", "AU04"])
    assert list(graph.nodes) == ["AU01", "AU02", "AU04"]
    assert sorted(graph.edges(data="weight")) == [
        ("AU02", "AU01", 0.5),
        ("AU02", "AU02", 2.0),
        ("AU04", "AU01", 0.25),
    ]


def test_networkx_picks_the_sample_and_checks_names() -> None:
    pytest.importorskip("networkx")
    graph = RelationGraph(weights=torch.stack((DENSE[0], torch.eye(3, requires_grad=True))))
    assert sorted(graph.to_networkx(sample=1).edges) == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ValueError, match="names must have 3 entries, got 2"):
        graph.to_networkx(names=["AU01", "AU02"])


def test_no_graphs_are_no_pyg_batch() -> None:
    pytest.importorskip("torch_geometric")
    with pytest.raises(ValueError, match="^B must be 1 or more for a Batch, got 0$"):
        RelationGraph(weights=torch.zeros(0, 3, 3)).to_pyg()


def test_pyg_batch() -> None:
    pytest.importorskip("torch_geometric")
    features = torch.randn(2, 3, 3, 4)
    graph = RelationGraph(NEIGHBORS.repeat(2, 1, 1), WEIGHTS.repeat(2, 1, 1), features)
    batch = graph.to_pyg()
    assert batch.num_graphs == 2 and batch.num_nodes == 6
    source, target = batch.edge_index
    assert source.tolist() == [1, 2, 1, 4, 5, 4]
    assert target.tolist() == [0, 0, 1, 3, 3, 4]
    assert batch.edge_weight.tolist() == [0.5, 0.25, 2.0] * 2
    assert torch.equal(batch.edge_attr[0], features[0, 0, 1])
    assert torch.equal(batch.edge_attr[5], features[1, 1, 1])


@pytest.mark.parametrize(
    ("package", "extra", "method"),
    [("networkx", "viz", "to_networkx"), ("torch_geometric.data", "pyg", "to_pyg")],
)
def test_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str, method: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'aurel-au\[{extra}\]'"):
        getattr(RelationGraph(NEIGHBORS), method)()
