"""Compare averages of graphs and their conversion to AUs with loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aurel.facs import AUSet, au_center_rules
from aurel.graph import RelationGraph
from aurel.output import AUOutput
from aurel.viz.mean_graph import au_adjacency, edge_strengths, lift_to_aus, mean_graphs


class Fixed:
    """A model that returns given graphs, one batch after the other."""

    def __init__(
        self,
        aus: str | list[int],
        *batches: tuple[RelationGraph, ...] | None,
        regions: bool = True,
    ) -> None:
        self.aus = AUSet.of(aus)
        self.center_rules = au_center_rules(self.aus) if regions else None
        self.batches = iter(batches)

    def __call__(self, images: Tensor, return_graph: bool) -> AUOutput:
        assert return_graph
        return AUOutput(torch.zeros(len(images), len(self.aus)), graphs=next(self.batches))


def test_neighbors_count_whatever_their_weights_and_empty_slots_do_not() -> None:
    graph = RelationGraph(
        neighbors=torch.tensor([[[1, -1], [0, 1], [2, 0]]]), weights=torch.zeros(1, 3, 2)
    )
    expected = torch.tensor([[[0.0, 1, 0], [1, 1, 0], [1, 0, 1]]])
    assert torch.equal(edge_strengths(graph), expected)


def test_a_dense_graph_gives_its_weights() -> None:
    weights = torch.rand(2, 4, 4)
    assert torch.equal(edge_strengths(RelationGraph(weights=weights)), weights)


def test_edge_features_give_gates_that_sum_to_one() -> None:
    features = torch.randn(2, 4, 4, 5)
    gates = edge_strengths(RelationGraph(edge_features=features))
    assert gates.shape == (2, 4, 4)
    assert torch.allclose(gates.sum(2), torch.ones(2, 4))
    e = torch.sigmoid(features[1, 2]).exp()
    assert torch.allclose(gates[1, 2], (e / e.sum(0)).mean(1))


def test_the_mean_is_over_images_not_over_batches() -> None:
    first = (RelationGraph(weights=torch.ones(3, 2, 2)),)
    second = (RelationGraph(weights=torch.zeros(1, 2, 2)),)
    (mean,) = mean_graphs(Fixed("DISFA", first, second), [torch.zeros(3, 3), torch.zeros(1, 3)])
    assert torch.equal(mean, torch.full((2, 2), 0.75, dtype=torch.float64))


def test_no_images_and_no_graph_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one face"):
        mean_graphs(Fixed("DISFA"), [])
    with pytest.raises(ValueError, match="model must return a graph, got Fixed"):
        mean_graphs(Fixed("DISFA", None), [torch.zeros(1, 3)])


def test_lifting_is_the_mean_over_pairs_of_regions() -> None:
    aus = AUSet.of("BP4D")
    rules = au_center_rules(aus)
    matrix = torch.rand(18, 18, dtype=torch.float64)
    lifted = lift_to_aus(matrix, rules.au_nodes)
    assert lifted.shape == (12, 12)
    for i, own in enumerate(rules.au_nodes):
        for j, other in enumerate(rules.au_nodes):
            pairs = [float(matrix[r, s]) for r in own for s in other if r != s]
            assert float(lifted[i, j]) == pytest.approx(sum(pairs) / len(pairs))


def test_graphs_over_aus_regions_and_main_aus_are_distinguished() -> None:
    adjacency, aus = au_adjacency(Fixed("BP4D"), torch.rand(12, 12))
    assert adjacency.shape == (12, 12) and aus == AUSet.of("BP4D")
    adjacency, aus = au_adjacency(Fixed("BP4D"), torch.rand(18, 18))
    assert adjacency.shape == (12, 12) and aus == AUSet.of("BP4D")
    lateral = Fixed("OpenGraphAU", regions=False)
    adjacency, aus = au_adjacency(lateral, torch.rand(27, 27))
    assert aus == AUSet.of("OpenGraphAU-main")
    with pytest.raises(ValueError, match="got 13 nodes"):
        au_adjacency(Fixed("BP4D"), torch.rand(13, 13))


def test_regions_are_lifted_also_where_there_are_as_many_as_aus() -> None:
    model = Fixed([12, 14, 23, 24])
    rules = au_center_rules(model.aus)
    assert rules.num_nodes == len(model.aus)
    regions = torch.rand(4, 4)
    adjacency, aus = au_adjacency(model, regions)
    assert torch.equal(adjacency, lift_to_aus(regions, rules.au_nodes)) and aus == model.aus
    assert not torch.allclose(adjacency, regions)
