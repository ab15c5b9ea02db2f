"""Fixed graphs over facial regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.facs import (
    AUCenter,
    au_center_rules,
    conditional_probabilities,
    facs_graph,
    statistics_graph,
)


def sources_of(graph: Tensor, aus: object) -> dict[int, set[int]]:
    """Return the source AUs of each AU; every pair of their regions must agree."""
    numbers = au_center_rules(aus)  # type: ignore[arg-type]
    sources: dict[int, set[int]] = {}
    for i, own in enumerate(numbers.au_nodes):
        sources[i] = set()
        for j, other in enumerate(numbers.au_nodes):
            block = graph[list(own)][:, list(other)]
            assert block.all() or not block.any()
            if block.all():
                sources[i].add(j)
    return sources


def test_facs_graph_of_disfa() -> None:
    aus = [1, 2, 4, 6, 9, 12, 25, 26]
    graph = facs_graph("DISFA")
    assert graph.shape == (16, 16) and graph.dtype == torch.bool
    assert torch.equal(graph, graph.mT)
    related = {1: {2}, 2: {1, 6}, 4: {9}, 6: {2, 12}, 9: {4}, 12: {6}, 25: set(), 26: set()}
    sources = {aus[i]: {aus[j] for j in js} for i, js in sources_of(graph, "DISFA").items()}
    assert sources == {au: {au, *others} for au, others in related.items()}


def test_aus_that_share_regions_share_relations() -> None:
    # 14 has the regions of 12 and 15, so it is a source wherever they are.
    graph = facs_graph([12, 14, 17], relations=[(17, 12)])
    assert graph.tolist() == [[True] * 4] * 4
    assert facs_graph([14, 17], relations=[(17, 12)]).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, True],
        [False, False, True, True],
    ]


def test_an_au_without_a_center_rule() -> None:
    with pytest.raises(
        ValueError, match="center rule for each AU, got none for AU05.*pass extra_rules="
    ):
        facs_graph([1, 5])
    graph = facs_graph([1, 5], [(1, 5)], {5: AUCenter((20, 27))})
    assert graph.shape == (4, 4) and graph.all()


def test_probabilities_count_rows_in_which_both_are_known() -> None:
    labels = torch.tensor([[1, 1, 0], [1, 0, -1], [1, -1, 1], [0, 1, 0], [0, 0, 0]])
    found = conditional_probabilities(labels)
    assert found.dtype == torch.float64
    expected = [[1, 1 / 2, 1 / 2], [1 / 2, 1, 0], [1, np.nan, 1]]
    np.testing.assert_allclose(found, expected)
    with pytest.raises(ValueError, match=r"labels must be 1 .present.*got 9 at \(0, 1\)"):
        conditional_probabilities(torch.tensor([[0, 9]]))
    with pytest.raises(ValueError, match=r"labels must have shape \(M, N\), got \(3,\)"):
        conditional_probabilities(torch.zeros(3))
    assert conditional_probabilities(torch.zeros(0, 2)).isnan().all()


def test_statistics_graph_is_directed_and_leaves_out_what_is_unknown() -> None:
    aus = [1, 2, 4]
    probabilities = torch.tensor([[1.0, 0.5, 0.1], [0.2, 1.0, torch.nan], [0.0, 0.7, torch.nan]])
    assert sources_of(statistics_graph(aus, probabilities), aus) == {0: {0, 1}, 1: {1}, 2: {1, 2}}
    assert sources_of(statistics_graph(aus, probabilities, threshold=0.15), aus) == {
        0: {0, 1},
        1: {0, 1},
        2: {1, 2},
    }
    with pytest.raises(ValueError, match=r"must have shape \(N=8, N=8\).* got \(3, 3\)"):
        statistics_graph("DISFA", probabilities)
