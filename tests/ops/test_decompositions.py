from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import aurel.ops
from aurel.ops.decompositions import decompositions

BATCH, NODES, WIDTH, K = 2, 5, 4, 3


def arguments() -> dict[str, tuple[Any, ...]]:
    x = torch.randn(BATCH, NODES, WIDTH)
    tokens = torch.randn(BATCH, NODES, 3, WIDTH)
    gram = tokens @ tokens.mT
    edges = torch.randn(BATCH, NODES, NODES, WIDTH)
    heads = torch.randn(BATCH, 2, NODES, WIDTH)
    adjacency = torch.rand(BATCH, NODES, NODES) < 0.5
    neighbors = aurel.ops.knn_graph(x, K)
    pairs = torch.rand(4, NODES, NODES)  # weight, bias, mean, variance
    return {
        "edge_update": (edges, -edges, x, x, *pairs, None, 1e-5, False, "torch"),
        "gated_edge_aggregate": (edges, x, None, "torch"),
        "graph_attention": (heads, heads[..., 0], heads[..., 1], adjacency, 0.2, True, "torch"),
        "knn_graph": (x, None, K, "cosine", False, "torch"),
        "knn_max_relative": (x, None, K, "l2", True, False, "torch"),
        "neighbor_aggregate": (x, neighbors, "mean", False, "torch"),
        "pair_pool": (tokens, tokens, gram, "torch"),
        "topk_aggregate": (x, x, None, K, "dot", "exact", "torch"),
    }


def test_every_operator_of_the_models_has_a_definition() -> None:
    registered = {
        name.removeprefix("aurel::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aurel::") and not name.endswith("_backward")
        if not name.startswith("aurel::ragged")  # no model takes ragged graphs
    }
    table = {op._schema.name.removeprefix("aurel::") for op in decompositions()}
    assert table == registered == set(arguments())


@pytest.mark.parametrize("name", list(arguments()))
def test_a_definition_gives_what_its_operator_gives(name: str) -> None:
    op = getattr(torch.ops.aurel, name).default
    given = arguments()[name]
    with torch.no_grad():
        ours, definition = op(*given), decompositions()[op](*given)
    if isinstance(ours, Tensor):
        ours, definition = (ours,), (definition,)
    assert len(ours) == len(definition)
    for a, b in zip(ours, definition, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)
