"""Dense batches to PyTorch Geometric's data and back."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, HeteroConv, SAGEConv

from aurel.graph import RelationGraph
from aurel.layers import CrossRegionGAT, GatedEdgeGCN, TopKGraphConv
from aurel.pyg import Ragged, convert, from_batch, from_hetero, to_batch, to_hetero

MASK = torch.tensor([[True, True, False, True], [False] * 4, [True, False, False, False]])
REGIONS = ("upper", "upper", "lower", "middle")


def random_graph(mask: torch.Tensor, features: bool = True) -> tuple[torch.Tensor, RelationGraph]:
    """Dense nodes and edges among nodes that exist."""
    pairs = mask[:, :, None] & mask[:, None]
    weights = torch.rand(pairs.shape).masked_fill(~pairs, 0)
    weights[torch.rand(pairs.shape) < 0.4] = 0
    edges = torch.randn(*pairs.shape, 2).masked_fill((weights == 0)[..., None], 0)
    x = torch.randn(*mask.shape, 5).masked_fill(~mask[..., None], 0)
    return x, RelationGraph(weights=weights, edge_features=edges if features else None)


def test_nodes_that_do_not_exist_are_left_out() -> None:
    x, graph = random_graph(MASK)
    data = to_batch(x, MASK, graph)
    assert isinstance(data, Batch) and data.num_graphs == 3
    assert data.batch.tolist() == [0, 0, 0, 2] and data.slot.tolist() == [0, 1, 3, 0]
    assert torch.equal(data.x, x[MASK])
    for (source, target), weight, features in zip(
        data.edge_index.t().tolist(), data.edge_weight, data.edge_attr, strict=True
    ):
        place = data.batch[target], data.slot[target], data.slot[source]
        assert data.batch[source] == data.batch[target]
        assert weight == graph.weights[place]
        assert torch.equal(features, graph.edge_features[place])
    assert len(data.edge_weight) == (graph.weights != 0).sum()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_there_and_back(seed: int, batch: int, nodes: int, features: bool) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(batch, nodes) < 0.6
    x, graph = random_graph(mask, features)
    got, got_mask, got_graph = from_batch(to_batch(x, mask, graph), nodes)
    assert torch.equal(got, x) and torch.equal(got_mask, mask)
    assert torch.equal(got_graph.adjacency(), graph.adjacency())
    if features:
        assert torch.equal(got_graph.edge_features, graph.edge_features)
    else:
        assert got_graph.edge_features is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_there_and_back_by_type(seed: int, batch: int, features: bool) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(batch, 4) < 0.6
    x, graph = random_graph(mask, features)
    data = to_batch(x, mask, graph)
    again = from_hetero(to_hetero(data, REGIONS))
    for key in ("x", "slot", "batch"):
        assert torch.equal(again[key], data[key])
    got, got_mask, got_graph = from_batch(again, 4, batch)
    assert torch.equal(got, x) and torch.equal(got_mask, mask)
    assert torch.equal(got_graph.adjacency(), graph.adjacency())
    if features:
        assert torch.equal(got_graph.edge_features, graph.edge_features)


def test_there_and_back_without_edges() -> None:
    x, _ = random_graph(MASK)
    hetero = to_hetero(to_batch(x, MASK), REGIONS)
    assert hetero.edge_types == []
    got, got_mask, graph = from_batch(from_hetero(hetero), 4)
    assert torch.equal(got, x) and torch.equal(got_mask, MASK) and graph is None


def test_single_graphs_by_type_are_collated_by_their_loader() -> None:
    """Types without a node in a face, and faces without a node, among them."""
    x, graph = random_graph(MASK)
    graphs = to_batch(x, MASK, graph).to_data_list()
    single = [to_hetero(data, REGIONS) for data in graphs]
    assert from_hetero(single[0]).to_dict().keys() == graphs[0].to_dict().keys() - {"num_nodes"}
    (loaded,) = DataLoader(single, batch_size=3)
    got, got_mask, got_graph = from_batch(from_hetero(loaded), 4, loaded.num_graphs)
    assert torch.equal(got, x) and torch.equal(got_mask, MASK)
    assert torch.equal(got_graph.adjacency(), graph.adjacency())
    assert torch.equal(got_graph.edge_features, graph.edge_features)


def test_types_of_nodes_and_edges() -> None:
    x, graph = random_graph(MASK)
    hetero = to_hetero(to_batch(x, MASK, graph), REGIONS)
    assert isinstance(hetero, HeteroData) and hetero.node_types == ["upper", "lower", "middle"]
    assert len(hetero.edge_types) == 9
    assert hetero["upper"].slot.tolist() == [0, 1, 0] and len(hetero["lower"].x) == 0
    assert hetero["upper"].batch.tolist() == [0, 0, 2]
    between = hetero["middle", "to", "upper"]
    expected = graph.weights[0, [0, 1], 3]
    assert torch.equal(between.edge_weight, expected[expected != 0])
    assert hetero.validate()


def test_their_layers_run_on_it() -> None:
    x, graph = random_graph(torch.ones(3, 4, dtype=torch.bool))
    data = to_batch(x, graph=graph)
    assert GCNConv(5, 7)(data.x, data.edge_index, data.edge_weight).shape == (12, 7)
    hetero = to_hetero(data, REGIONS)
    convs = {kind: SAGEConv((5, 5), 7) for kind in hetero.edge_types}
    out = HeteroConv(convs)(hetero.x_dict, hetero.edge_index_dict)
    assert {name: tuple(part.shape) for name, part in out.items()} == {
        "upper": (6, 7),
        "lower": (3, 7),
        "middle": (3, 7),
    }


def test_our_layers_run_on_it() -> None:
    """A graph of a layer becomes data whose nodes and edges give the results of the dense form."""
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    x = torch.randn(2, 4, 8)
    layer = TopKGraphConv(8, 4, k=2).eval()
    out, graph = layer(x, mask, return_graph=True)
    data = to_batch(x, mask, graph)
    torch.testing.assert_close(Ragged(layer)(data.x, data.batch, data.slot), out[mask])
    gat = CrossRegionGAT(8, (0, 0, 1, 2), edges="cross_region").eval()
    torch.testing.assert_close(Ragged(gat)(data.x, data.batch, data.slot), gat(x, mask=mask)[mask])
    gated = GatedEdgeGCN(8, 4).eval()
    complete = RelationGraph(weights=torch.ones(2, 4, 4), edge_features=torch.randn(2, 4, 4, 8))
    data = to_batch(x, mask, complete)
    nodes, edges = Ragged(gated)(data.x, data.batch, data.slot, data.edge_attr)
    expected_parts = gated(x, complete.edge_features, mask)
    torch.testing.assert_close(nodes, expected_parts[0][mask])
    torch.testing.assert_close(edges, expected_parts[1][mask[:, :, None] & mask[:, None]])


def test_neighbor_lists_become_edges() -> None:
    x = torch.randn(1, 3, 2)
    graph = RelationGraph(neighbors=torch.tensor([[[1, 2], [1, -1], [-1, -1]]]))
    data = to_batch(x, graph=graph)
    assert data.edge_index.tolist() == [[1, 2, 1], [0, 0, 1]]
    assert data.edge_weight.tolist() == [1, 1, 1]


def test_data_of_pyg() -> None:
    """One graph without a batch, without slots, without weights, with parallel edges."""
    edges = torch.tensor([[1, 2, 1], [0, 0, 0]])
    x, mask, graph = from_batch(Data(x=torch.eye(3), edge_index=edges), 4)
    assert x.shape == (1, 4, 3) and mask.tolist() == [[True, True, True, False]]
    assert graph.adjacency()[0, 0].tolist() == [0, 2, 1, 0] and graph.adjacency().sum() == 3
    x, mask, graph = from_batch(Data(x=torch.eye(3)))
    assert graph is None and mask.all() and torch.equal(x[0], torch.eye(3))
    batch = Batch.from_data_list([Data(x=torch.ones(2, 3)), Data(x=torch.zeros(0, 3))])
    assert from_batch(batch)[1].tolist() == [[True, True], [False, False]]
    with pytest.raises(ValueError, match=r"slot must lie in 0\.\.3, got 5\.\.5"):
        from_batch(Data(x=torch.ones(1, 3), slot=torch.tensor([5])), 4)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    edges=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)
def test_parallel_edges_and_weights_of_0_come_back(sizes: list[int], edges: int, seed: int) -> None:
    torch.manual_seed(seed)
    graphs = []
    for size in sizes:
        edge_index = torch.randint(size, (2, edges))
        weight = torch.randint(-1, 2, (edges,)).float()
        graphs.append(Data(x=torch.randn(size, 2), edge_index=edge_index, edge_weight=weight))
    data = Batch.from_data_list(graphs)
    x, mask, graph = from_batch(data)
    again = to_batch(x, mask, graph)
    assert torch.equal(again.x, data.x) and torch.equal(again.batch, data.batch)
    assert edge_list(again) == edge_list(data)
    dense = torch.zeros(len(data.x), len(data.x))
    for source, target, weight in edge_list(data):
        dense[target, source] += weight
    blocks = [a[m][:, m] for a, m in zip(graph.adjacency(), mask, strict=True)]
    torch.testing.assert_close(torch.block_diag(*blocks), dense)


def edge_list(data: Data) -> list[tuple[int, int, float]]:
    return sorted(zip(*data.edge_index.tolist(), data.edge_weight.tolist(), strict=True))


def test_features_of_edges_of_weight_0_come_back() -> None:
    edges = torch.tensor([[1, 2, 0], [0, 0, 2]])
    weight, features = torch.tensor([0.0, 0.5, 0.0]), torch.randn(3, 2)
    data = Data(x=torch.eye(3), edge_index=edges, edge_weight=weight, edge_attr=features)
    again = to_batch(*from_batch(data))
    assert again.edge_index.tolist() == edges.tolist()
    assert torch.equal(again.edge_weight, weight) and torch.equal(again.edge_attr, features)


def test_features_of_parallel_edges_are_refused() -> None:
    edges = torch.tensor([[1, 2, 1], [0, 0, 0]])
    data = Data(x=torch.eye(3), edge_index=edges, edge_attr=torch.tensor([[1.0], [2.0], [3.0]]))
    with pytest.raises(ValueError, match="no parallel edges .* edge_attr, got 3 .* 2 pairs"):
        from_batch(data)
    _, _, graph = from_batch(data.coalesce())
    assert graph.edge_features[0, 0, :, 0].tolist() == [0, 4, 2]


def test_lists_come_back_whatever_the_dense_form_would_lose() -> None:
    lists = torch.tensor([[[1, 1], [2, -1], [-1, -1]]])
    weights = torch.tensor([[[0.5, 0.25], [0.0, 9.0], [9.0, 9.0]]], requires_grad=True)
    data = to_batch(torch.randn(1, 3, 2), graph=RelationGraph(neighbors=lists, weights=weights))
    assert edge_list(data) == [(1, 0, 0.25), (1, 0, 0.5), (2, 1, 0.0)]
    _, _, graph = from_batch(data)
    assert torch.equal(graph.neighbors, lists)
    (grad,) = torch.autograd.grad(graph.weights.sum(), weights)
    assert torch.equal(grad, (lists >= 0).float())


def test_gradients_flow() -> None:
    x, graph = random_graph(MASK)
    x.requires_grad_()
    dense, _, _ = from_batch(to_batch(x, MASK, graph), 4)
    (dense * 2).sum().backward()
    assert torch.equal(x.grad, 2 * MASK[..., None].expand_as(x).float())


def test_messages() -> None:
    x, graph = random_graph(MASK)
    with pytest.raises(ValueError, match=r"x must have shape \(B, N, C\), got \(4, 5\)"):
        to_batch(x[0])
    with pytest.raises(ValueError, match="mask must be bool"):
        to_batch(x, MASK.float())
    with pytest.raises(ValueError, match="x must hold at least one graph, got"):
        to_batch(x[:0])
    with pytest.raises(ValueError, match="types must name all 4 slots, got 2"):
        to_hetero(to_batch(x, MASK, graph), REGIONS[:2])
    with pytest.raises(ValueError, match="data must have x and slot"):
        to_hetero(Data(x=x[0]), REGIONS)
    hetero = HeteroData()
    hetero["upper"].x = x[0]
    with pytest.raises(ValueError, match="'upper' must have x and slot"):
        from_hetero(hetero)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": None}, "data must have x"),
        (
            {"batch": torch.tensor([1, 0, 0])},
            "batch must be sorted",
        ),
        (
            {"edge_index": torch.tensor([[0], [3]])},
            r"edge_index must name nodes 0\.\.2, got 0\.\.3",
        ),
        (
            {"edge_index": torch.tensor([[0], [2]]), "batch": torch.tensor([0, 0, 1])},
            "edge_index must connect nodes of the same graph",
        ),
        ({}, "num_slots must be at least 3, the nodes of the largest graph, got 2"),
    ],
)
def test_data_that_has_no_dense_form(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_batch(Data(**{"x": torch.eye(3), **fields}), 3 if fields else 2)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match=r"pip install 'aurel-au\[pyg\]'"):
        runpy.run_path(convert.__file__)
