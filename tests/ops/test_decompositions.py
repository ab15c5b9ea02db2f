from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import aurel.ops
from aurel.ops.decompositions import decompositions

BATCH, NODES, WIDTH, K = 2, 5, 4, 3
MASK = torch.tensor([[True, False, True, True, True], [True, True, True, False, True]])


def calls() -> dict[str, list[tuple[int, tuple[Any, ...]]]]:
    """Calls of each operator, with how many of its outputs are results and not for its gradient."""
    x, mask = torch.randn(BATCH, NODES, WIDTH), MASK
    tokens = torch.randn(BATCH, NODES, 3, WIDTH)
    gram = tokens @ tokens.mT
    edges = torch.randn(BATCH, NODES, NODES, WIDTH)
    heads = torch.randn(BATCH, 2, NODES, WIDTH)
    attention = (heads, heads[..., 0], heads[..., 1], torch.rand(BATCH, NODES, NODES) < 0.5)
    neighbors = aurel.ops.knn_graph(x, K)
    weight, bias, *statistics = torch.rand(4, NODES, NODES)
    update = (edges, -edges, x, x, weight, bias)
    return {
        "edge_update": [
            (1, (*update, *statistics, None, 1e-5, False, "torch")),
            (1, (*update, *statistics, mask, 0.5, False, "torch")),
            (3, (*update, None, None, mask, 0.5, False, "torch")),
        ],
        "gated_edge_aggregate": [(1, (edges, x, None, "torch"))],
        "graph_attention": [
            (2, (*attention, 0.2, True, "torch")),
            (1, (*attention, 0.5, False, "torch")),
        ],
        "knn_graph": [
            (1, (x, None, K, "cosine", False, "torch")),
            (1, (x, mask, K, "l1", True, "torch")),
        ],
        "knn_max_relative": [
            (2, (x, None, K, "l2", True, False, "torch")),
            (2, (x, mask, K, "l1", False, False, "torch")),
        ],
        "neighbor_aggregate": [
            (1, (x, neighbors, reduce, False, "torch")) for reduce in ("max", "mean", "sum")
        ],
        "pair_pool": [(2, (tokens, tokens, gram, "torch")), (1, (tokens, tokens, None, "torch"))],
        "topk_aggregate": [
            (2, (x, x, None, K, "dot", "exact", "torch")),
            (2, (x.sign(), x, mask, K, "l1", "all", "torch")),
        ],
    }


def test_every_operator_of_the_models_has_a_definition() -> None:
    registered = {
        name.removeprefix("aurel::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aurel::") and not name.endswith("_backward")
        if not name.startswith("aurel::ragged")  # no model takes ragged graphs
    }
    table = {op._schema.name.removeprefix("aurel::") for op in decompositions()}
    assert table == registered == set(calls())


@pytest.mark.parametrize("name", list(calls()))
def test_a_definition_gives_what_its_operator_gives(name: str) -> None:
    op = getattr(torch.ops.aurel, name).default
    for results, given in calls()[name]:
        with torch.no_grad():
            ours, definition = op(*given), decompositions()[op](*given)
        if isinstance(ours, Tensor):
            ours, definition = (ours,), (definition,)
        assert [each.dtype for each in ours] == [each.dtype for each in definition]
        for a, b in zip(ours[:results], definition[:results], strict=True):
            torch.testing.assert_close(a, b)
        assert not any(kept.numel() for kept in definition[results:])


def test_absent_nodes_are_no_sources_of_the_gated_sum() -> None:
    """What the operator has for them as targets, its caller fills with zeros."""
    op = torch.ops.aurel.gated_edge_aggregate.default
    edges, x = torch.randn(BATCH, NODES, NODES, WIDTH), torch.randn(BATCH, NODES, WIDTH)
    ours, definition = (each(edges, x, MASK, "torch") for each in (op, decompositions()[op]))
    torch.testing.assert_close(ours[MASK], definition[MASK])
