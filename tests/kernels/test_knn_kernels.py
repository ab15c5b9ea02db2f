"""knn kernels: exact neighbours, ties included, whole graphs and tiles of larger ones."""

from __future__ import annotations

import pytest
import torch
from aurel_kernels import knn
from hypothesis import given, settings
from plain import DEVICE, DTYPES, METRICS, QUIET, Case, cases, integers, neighbors, scores
from torch import Tensor

from aurel.ops.knn_graph import knn_graph

pytestmark = QUIET


def triton(x: Tensor, k: int, metric: str, loop: bool = True, mask: Tensor | None = None) -> Tensor:
    return knn_graph(x, k, metric, loop=loop, mask=mask, backend="triton")


def check(x: Tensor, k: int, metric: str, loop: bool = True, mask: Tensor | None = None) -> None:
    got = triton(x, k, metric, loop, mask)
    assert got.dtype == torch.int64 and got.device == x.device and got.is_contiguous()
    assert torch.equal(got.cpu(), neighbors(x, k, metric, loop, mask))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_equals_the_definition(case: Case) -> None:
    check(case.x, case.k, case.metric, case.loop, case.mask)


@settings(max_examples=10, deadline=None)
@given(cases(most_nodes=12))
def test_tiles_equal_the_definition(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "WHOLE_GRAPH", 0)
        check(case.x, case.k, case.metric, case.loop, case.mask)


@pytest.mark.parametrize("metric", METRICS)
def test_several_tiles(metric: str) -> None:
    x = integers(1, 70, 9)
    present = torch.arange(70, device=DEVICE)[None] % 5 != 0
    loop = metric in ("l1", "cosine")
    check(x, 9 if loop else 5, metric, loop, present if loop else None)


def test_most_neighbors() -> None:
    check(integers(1, 64, 6), 64, "l2")
    check(integers(1, 66, 6), 64, "dot", loop=False)


@pytest.mark.parametrize("nodes", [1, 2, 17, 41])
def test_k_from_1_to_n(nodes: int) -> None:
    for k in {1, nodes}:
        check(integers(1, nodes, 5), k, "l2")


@pytest.mark.parametrize("metric", METRICS)
def test_too_few_nodes_leave_empty_slots(metric: str) -> None:
    mask = torch.zeros(2, 6, dtype=torch.bool, device=DEVICE)
    mask[0, [1, 4]] = True
    got = triton(integers(2, 6, 4), 3, metric, False, mask)
    assert got[0, 1].tolist() == [4, -1, -1] and got[0, 4].tolist() == [1, -1, -1]
    assert (got[1] == -1).all() and (got[0, [0, 2, 3, 5]] == -1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_broken_node_comes_last(metric: str, whole: bool, monkeypatch) -> None:
    if not whole:
        monkeypatch.setattr(knn, "WHOLE_GRAPH", 0)
    x = integers(3, 8, 5)
    x[0, 2, 3], x[1, 4, 0], x[1, 5], x[2, 6, 1] = torch.nan, torch.inf, torch.nan, -torch.inf
    check(x, 8, metric)
    healthy = [i for i in range(8) if i != 2]
    assert (triton(x, 8, metric)[0, healthy, -1] == 2).all()


@pytest.mark.parametrize("metric", METRICS)
def test_what_an_absent_node_holds_does_not_matter(metric: str) -> None:
    x = integers(2, 9, 5)
    mask = torch.ones(2, 9, dtype=torch.bool, device=DEVICE)
    mask[:, ::3] = False
    spoiled = x.masked_fill(~mask[..., None], torch.nan)
    assert torch.equal(triton(x, 4, metric, True, mask), triton(spoiled, 4, metric, True, mask))


@pytest.mark.parametrize("whole", [True, False])
def test_nodes_far_from_the_origin(whole: bool, monkeypatch) -> None:
    if not whole:
        monkeypatch.setattr(knn, "WHOLE_GRAPH", 0)
    x = 1000 + torch.randn(1, 20, 33, device=DEVICE)
    x[:, 0] = 0  # and one that is not
    distance = scores(x, "l2").sqrt()
    got = distance.gather(2, triton(x, 5, "l2"))
    assert torch.allclose(got[:, 1:], distance.sort(-1).values[:, 1:, :5], rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_duplicates_tie_to_the_lowest_index(metric: str, dtype: torch.dtype) -> None:
    x = torch.randn(1, 5, 24, device=DEVICE).to(dtype).repeat(1, 3, 1)
    got = triton(x, 15, metric)
    order = got.view(1, 15, 5, 3)
    assert (order % 5 == order[..., :1] % 5).all()
    assert (order.diff(dim=-1) == 5).all()


def test_empty_batch() -> None:
    assert triton(integers(0, 5, 3), 2, "l2").shape == (0, 5, 2)
