"""knn kernels on graphs of more nodes than one tile: running lists, candidates, exact rows."""

from __future__ import annotations

import pytest
import torch
from helpers.plain import DEVICE, METRICS, QUIET, Case, assert_nearest, case, cases, integers
from hypothesis import assume, given, settings
from torch import Tensor

from aurel.kernels.triton import channel_tiles, knn_candidates, knn_exact, knn_graph

pytestmark = QUIET


def check(choice: Case) -> None:
    assert torch.equal(knn_graph.forward(*choice.arguments()).cpu(), choice.neighbors())


def exact_rows(choice: Case, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Check a choice by candidates; return which rows were chosen again from all pairs."""
    flags: list[Tensor] = []
    original = knn_candidates.exact_neighbors

    def exact_neighbors(problem, neighbors, given_flags):
        flags.append(given_flags.clone())
        original(problem, neighbors, given_flags)

    monkeypatch.setattr(knn_candidates, "exact_neighbors", exact_neighbors)
    assert_nearest(knn_graph.forward(*choice.arguments()), choice)
    return flags[0] != 0


@settings(max_examples=15, deadline=None)
@given(cases(most_nodes=40))
def test_small_tiles_equal_the_definition(choice: Case) -> None:
    assume(choice.k * choice.dilation <= 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel_tiles, "WHOLE_GRAPH", 16)
        patch.setattr(knn_exact, "WHOLE_GRAPH", 16)
        check(choice)


@settings(max_examples=15, deadline=None)
@given(cases(most_nodes=20, metrics=("l2",)))
def test_candidates_equal_the_definition(choice: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_graph, "WHOLE_GRAPH", 0)
        check(choice)


@pytest.mark.parametrize("metric", METRICS)
def test_several_tiles(metric: str) -> None:
    mask = torch.arange(70, device=DEVICE)[None] % 5 != 0
    loop = metric in ("l1", "cosine")
    options = {"mask": mask} if loop else {}
    check(case(integers(1, 70, 9), 9 if loop else 5, metric, loop=loop, **options))


@pytest.mark.parametrize("metric", METRICS)
def test_ties_across_tiles(metric: str) -> None:
    check(case(torch.full((1, 70, 4), 2.0, device=DEVICE), 9, metric))


@pytest.mark.parametrize(("nodes", "k"), [(65, 1), (65, 64), (100, 12)])
def test_lists_of_any_length(nodes: int, k: int) -> None:
    check(case(integers(1, nodes, 6), k))
    check(case(torch.randn(1, nodes, 6, device=DEVICE), k))


def test_sources_bias_masks_and_dilation() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(1, 100, generator=generator).to(DEVICE) < 0.7
    choice = case(
        torch.randn(1, 20, 7, device=DEVICE),
        6,
        sources=torch.randn(1, 100, 7, device=DEVICE),
        bias=torch.randn(20, 100, device=DEVICE),
        mask=present[:, :20].contiguous(),
        source_mask=present,
        dilation=3,
    )
    check(choice)


def test_random_features_are_chosen_from_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = case(torch.randn(1, 100, 24, device=DEVICE), 9)
    assert not exact_rows(choice, monkeypatch).any()


def test_two_clusters_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin lies in the second; around the first, sums cancel."""
    x = torch.randn(1, 140, 24, device=DEVICE)
    x[:, 70:] += 1000
    rows = exact_rows(case(x, 9), monkeypatch)[0]
    assert rows[:70].any() and not rows[70:].any()


def test_nodes_on_a_line_far_from_the_origin() -> None:
    x = torch.cat((torch.arange(40) * 0.1 - 3000, torch.arange(40) * 0.1 + 3000))[None, :, None]
    choice = case(x.to(DEVICE), 1)
    assert_nearest(knn_graph.forward(*choice.arguments()), choice)
    assert torch.equal(knn_graph.forward(*choice.arguments())[0, :, 0].cpu(), torch.arange(80))


def test_equal_nodes_are_chosen_from_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 70, 8, device=DEVICE)
    x[:, ::2] = 0
    flagged = exact_rows(case(x, 9), monkeypatch)
    assert flagged[0, ::2].all()
    check(case(x, 9))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e30])
def test_a_node_that_is_not_finite_comes_last(value: float) -> None:
    x = integers(1, 66, 5)
    x[0, 33, 2] = value
    check(case(x, 9))
    rest = x.clone()
    rest[0, 33] = 0
    mask = torch.ones(1, 66, dtype=torch.bool, device=DEVICE)
    mask[0, 33] = False
    assert torch.equal(
        knn_graph.forward(*case(x, 9, mask=mask).arguments()),
        knn_graph.forward(*case(rest, 9, mask=mask).arguments()),
    )


def test_tiny_features() -> None:
    choice = case(integers(1, 66, 5) * 2.0**-60, 9)
    check(choice)


def test_fewer_sources_than_k() -> None:
    mask = torch.zeros(1, 66, dtype=torch.bool, device=DEVICE)
    mask[0, [3, 64, 65]] = True
    check(case(integers(1, 66, 5), 5, mask=mask))
